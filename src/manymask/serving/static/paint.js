// Paints the picture with the outlines, and both maps.
const layer = document.createElement("canvas"); // picture and outlines of the masks: they stay while the threshold moves
let layered = "";

// sizes a canvas for its place on the screen; gives its context with the picture's pixels as unit, and a pixel's size
function easel(canvas, tallest) {
  const { width, height } = view.scene;
  const room = canvas.parentElement.clientWidth;
  const shown = Math.min(room, (tallest * width) / height);
  const sharp = Math.min(3, window.devicePixelRatio || 1);
  const size = [Math.round(shown * sharp), Math.round((shown * sharp * height) / width)];
  if (canvas.width !== size[0] || canvas.height !== size[1]) [canvas.width, canvas.height] = size;
  canvas.style.width = shown + "px";
  return [aim(canvas), (sharp * frame()[2]) / canvas.width];
}

function aim(canvas) {
  const [x, y, width] = frame();
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  const unit = canvas.width / width;
  context.setTransform(unit, 0, 0, unit, -x * unit, -y * unit);
  return context;
}

function stroke(context, path, pixel, ink, width, edge) {
  const { scene } = view;
  context.save();
  context.scale(scene.width / scene.grid[0], scene.height / scene.grid[1]);
  pixel *= scene.grid[0] / scene.width;
  context.lineCap = context.lineJoin = "round";
  if (edge) {
    [context.strokeStyle, context.lineWidth] = ["rgba(0,0,0,0.65)", (width + 2) * pixel];
    context.stroke(path);
  }
  [context.strokeStyle, context.lineWidth] = [ink, width * pixel];
  context.stroke(path);
  context.restore();
}

// the picture with the outlines of the masks
function background(canvas, pixel) {
  const { scene } = view;
  const key = [canvas.width, canvas.height, ...frame(), view.stamp, view.paths.length, ...view.hidden, "-", ...view.leftOut].join();
  if (layered === key) return;
  layered = key;
  [layer.width, layer.height] = [canvas.width, canvas.height];
  const context = aim(layer);
  context.drawImage(view.picture, 0, 0, scene.width, scene.height);
  view.paths.forEach((path, k) => {
    if (view.hidden.has(k)) return;
    context.globalAlpha = view.leftOut.has(k) ? 0.45 : 1;
    stroke(context, path, pixel, colour(k), view.leftOut.has(k) ? 1 : 2, !view.leftOut.has(k));
  });
}

function paint() {
  const { scene } = view;
  if (!scene || !view.picture) return;
  const canvas = find(".mm-main canvas");
  const [context, pixel] = easel(canvas, 0.7 * window.innerHeight);
  if (!canvas.width) return; // not laid out yet
  background(canvas, pixel);
  context.save();
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.drawImage(layer, 0, 0);
  context.restore();
  if (view.border && !view.hidden.has("consensus")) {
    if (view.corrected) {
      stroke(context, view.border, pixel, "rgba(255,255,255,0.6)", 1, false);
      stroke(context, view.correctedBorder, pixel, "#ffffff", 3, true);
    } else stroke(context, view.border, pixel, "#ffffff", 3, true);
  }
  for (const path of promised()) stroke(context, path, pixel, "#ffffff", 1.5, true);
  if (!view.marks.length) for (const region of scene.regions) square(context, region, pixel, false);
  for (const mark of view.marks) square(context, around(mark), pixel, true);
  paintBrush(context, pixel);
  for (const name of ["confidence", "disagreement"]) {
    if (!view[name]) continue;
    const [map, dot] = easel(find(".mm-" + name + " canvas"), 0.45 * window.innerHeight);
    map.drawImage(view[name], 0, 0, scene.width, scene.height);
    if (view.border) stroke(map, view.corrected ? view.correctedBorder : view.border, dot, "#ffffff", 1.5, true);
  }
}

const due = new Map();
function soon(work) {
  cancelAnimationFrame(due.get(work));
  due.set(work, requestAnimationFrame(work));
}
new ResizeObserver(() => soon(paint)).observe(element);
