// The part of the picture that is shown: the same in the picture and in both maps. Wheel, pinch, drag, double click, keys.
const WHOLE = { scale: 1, x: 0, y: 0 }; // x, y: middle of the part, in pixels of the image
const MOST = 40; // times
const camera = { ...WHOLE };
const fingers = new Map();
const touch = { moved: false, scrolled: 0 };

function frame() {
  const { width, height } = view.scene;
  const [across, down] = [width / camera.scale, height / camera.scale];
  return [camera.x - across / 2, camera.y - down / 2, across, down];
}

function look(scale, x, y) {
  const { width, height } = view.scene;
  camera.scale = Math.min(MOST, Math.max(1, scale));
  const inside = (middle, side) => Math.min(Math.max(middle, side / camera.scale / 2), side - side / camera.scale / 2);
  [camera.x, camera.y] = [inside(x, width), inside(y, height)];
  const near = camera.scale > 1.001;
  for (const canvas of element.querySelectorAll("canvas")) canvas.classList.toggle("mm-near", near);
  find(".mm-fit").disabled = !near && !drawnRegions().length;
  find(".mm-out").disabled = !near;
  soon(paint);
}
const lookAtAll = () => look(1, 0, 0);
const drawnRegions = () => (view.scene.masks.length ? view.scene.regions : []);

// the regions of interest with a margin
function lookAtRegions() {
  const boxes = drawnRegions();
  const [left, top, right, bottom] = [0, 1, 2, 3].map((k) => Math[k < 2 ? "min" : "max"](...boxes.map((box) => box[k])));
  const { width, height } = view.scene;
  const scale = Math.min(width / (right - left), height / (bottom - top)) / 1.15;
  look(scale, (left + right) / 2, (top + bottom) / 2);
}

// the place of an event in pixels of the image, with fractions
function placeAt(event) {
  const box = event.target.getBoundingClientRect();
  const [x, y, width, height] = frame();
  return [x + ((event.clientX - box.left) / box.width) * width, y + ((event.clientY - box.top) / box.height) * height];
}
const pixelAt = (event) => placeAt(event).map((value, k) => Math.max(0, Math.min(Math.floor(value), (k ? view.scene.height : view.scene.width) - 1)));

// what lies under (x, y) stays there
function zoom(factor, x = camera.x, y = camera.y) {
  const scale = Math.min(MOST, Math.max(1, camera.scale * factor));
  const share = 1 - camera.scale / scale;
  look(scale, camera.x + (x - camera.x) * share, camera.y + (y - camera.y) * share);
}

function drag(event) {
  const finger = fingers.get(event.pointerId);
  const before = [...fingers.values()].map(({ at }) => at);
  const last = finger.at;
  finger.at = [event.clientX, event.clientY];
  if (Math.hypot(finger.at[0] - finger.start[0], finger.at[1] - finger.start[1]) > 4) touch.moved = true;
  const pixel = frame()[2] / event.target.getBoundingClientRect().width;
  if (before.length === 2) {
    const after = [...fingers.values()].map(({ at }) => at);
    const apart = ([a, b]) => Math.max(1, Math.hypot(a[0] - b[0], a[1] - b[1]));
    const middle = ([a, b]) => [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2];
    const [from, to] = [middle(before), middle(after)];
    look(camera.scale, camera.x - (to[0] - from[0]) * pixel, camera.y - (to[1] - from[1]) * pixel);
    zoom(apart(after) / apart(before), ...placeAt({ target: event.target, clientX: to[0], clientY: to[1] }));
  } else if (touch.moved) {
    look(camera.scale, camera.x - (finger.at[0] - last[0]) * pixel, camera.y - (finger.at[1] - last[1]) * pixel);
  }
}

const KEYS = { "+": [1.25], "=": [1.25], "-": [0.8], ArrowLeft: [0, -1, 0], ArrowRight: [0, 1, 0], ArrowUp: [0, 0, -1], ArrowDown: [0, 0, 1] };
function keyed(event) {
  if (!view.scene || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "0") lookAtAll();
  else if (event.key in KEYS) {
    const [factor, across, down] = KEYS[event.key];
    if (!factor && camera.scale <= 1.001) return; // the page scrolls
    const [, , width, height] = frame();
    if (factor) zoom(factor);
    else look(camera.scale, camera.x + across * 0.15 * width, camera.y + down * 0.15 * height);
  } else return;
  event.preventDefault();
}

for (const canvas of element.querySelectorAll("canvas")) {
  // a page that is being scrolled goes on scrolling
  canvas.addEventListener("wheel", (event) => {
    const out = event.deltaY > 0;
    if (!view.scene || performance.now() - touch.scrolled < 300 || (out && camera.scale <= 1.001)) return;
    event.preventDefault();
    zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0018)), ...placeAt(event));
  }, { passive: false });
  canvas.addEventListener("pointerdown", (event) => {
    if (!view.scene || event.button) return;
    if (!fingers.size) touch.moved = false;
    const place = [event.clientX, event.clientY];
    fingers.set(event.pointerId, { start: place, at: place });
    if (fingers.size > 1) dropStroke();
    if (!painting(event)) canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (fingers.has(event.pointerId) && (fingers.size > 1 || !painting(event))) drag(event);
  });
  for (const kind of ["pointerup", "pointercancel", "lostpointercapture"]) canvas.addEventListener(kind, (event) => fingers.delete(event.pointerId));
  canvas.addEventListener("dblclick", () => { if (view.scene && !brushing()) lookAtAll(); });
}
find(".mm-main canvas").addEventListener("keydown", keyed);
window.addEventListener("scroll", () => { touch.scrolled = performance.now(); }, { passive: true });
find(".mm-in").addEventListener("click", () => zoom(1.5));
find(".mm-out").addEventListener("click", () => zoom(1 / 1.5));
find(".mm-fit").addEventListener("click", () => (camera.scale <= 1.001 ? lookAtRegions() : lookAtAll()));
