// The page as a whole: which scene is shown, and what is said of it.
const working = () => {
  const { scene } = view;
  return Boolean(scene) && !view.ended && (view.waiting > 0 || (scene.total > 0 && scene.progress < 1));
};
const ordinal = (number) => number + (["th", "st", "nd", "rd"][number % 100 > 10 && number % 100 < 14 ? 0 : number % 10] || "th");

function status() {
  const { scene } = view;
  const done = scene.masks.length;
  const name = scene.name + (scene.place ? " (" + scene.place + ")" : "");
  if (view.waiting > 0 && !view.ended) return "Waiting: you are " + ordinal(view.waiting + 1) + " in line …";
  if (working()) return "Drawing mask " + Math.min(done + 1, scene.total) + " of " + scene.total + " …";
  if (!done) return name + ", " + scene.width + " × " + scene.height + " px";
  return name + ": " + done + (done > 1 ? " masks" : " mask") + (done < scene.total ? ", then stopped" : " in " + scene.seconds.toFixed(1) + " s");
}

function tell() {
  const { scene } = view;
  const done = scene.masks.length;
  const busy = working();
  const focused = document.activeElement;
  find(".mm").classList.toggle("mm-working", busy);
  find(".mm-progress i").style.width = 100 * scene.progress + "%";
  find(".mm-progress").setAttribute("aria-valuenow", String(Math.round(100 * scene.progress)));
  find(".mm-status").textContent = status();
  find("#mm-stop").hidden = !busy;
  find(".mm-warnings").replaceChildren(...scene.warnings.map((text) => Object.assign(document.createElement("li"), { textContent: text })));
  tellBadges();
  tellOutlines();
  find(".mm-hint").textContent = done ? "one colour per mask, the consensus in white"
    : scene.crop && Math.max(scene.width, scene.height) > scene.crop ? "click where to look, then draw" : "";
  find(".mm-main").classList.toggle("mm-clickable", scene.crop > 0);
  find(".mm-empty").hidden = true;
  find(".mm-stage").hidden = false;
  find(".mm-panels").style.setProperty("--aspect", scene.width / scene.height);
  find(".mm-panels").classList.toggle("mm-drawn", done > 0);
  find(".mm-result").hidden = find(".mm-maps").hidden = find(".mm-threshold").hidden = !done;
  find(".mm-fit").disabled = camera.scale <= 1.001 && !drawnRegions().length;
  document.querySelector("#mm-draw").textContent = done && !busy ? "Draw again" : "Draw masks";
  tellThreshold();
  tellBrush();
  tellSave();
  if (focused && focused !== document.body && !focused.offsetParent && element.contains(focused)) find(".mm-main canvas").focus({ preventScroll: true });
}

// back to the page as it was at first
function clear() {
  Object.assign(view, BLANK, { grids: [], paths: [], marks: [], strokes: [], corrected: null });
  view.hidden.clear();
  view.leftOut.clear();
  kept.clear();
  find(".mm-areas").replaceChildren();
  tellBrush();
  find(".mm-empty").hidden = false;
  find(".mm-stage").hidden = true;
  document.querySelector("#mm-draw").textContent = "Draw masks";
  const first = find(".mm-thumbs button");
  if (first) first.focus({ preventScroll: true });
}

// what was drawn before is gone
function forget() {
  Object.assign(view, { grids: [], paths: [], mean: null, border: null, confidence: null, disagreement: null, strokes: [], corrected: null, mended: null });
  view.hidden.clear();
  view.leftOut.clear();
  find(".mm-areas").replaceChildren();
  find(".mm-areas").removeAttribute("aria-busy");
  view.changes += 1; // what was asked of the old one is not heard
}

// on a small screen the result would appear below what is seen
function intoSight() {
  const top = find(".mm-stage").getBoundingClientRect().top;
  if (top > (window.innerWidth < 960 ? 0.3 : 0.6) * window.innerHeight) find(".mm-stage").scrollIntoView({ block: "start" });
}

async function outlinesOf(scene) {
  for (const mask of scene.masks.slice(view.grids.length)) {
    const grid = await inflate(mask);
    view.grids.push(grid);
    view.paths.push(outline(grid, ...scene.grid, 127.5));
  }
  const dashed = (grid) => outline(grid, ...scene.grid, 127.5, dashes(scene.grid[0]));
  view.promised = await Promise.all(scene.promised.map(async (pair) => (await Promise.all(pair.map(inflate))).map(dashed)));
}

async function show(scene) {
  if (!scene || !scene.stamp || scene.stamp < view.stamp) return;
  if (scene.counted) return counting(scene);
  if (scene.stamp > view.stamp) for (const button of document.querySelectorAll("[data-testid=toast-close]")) button.click();
  view.stamp = scene.stamp;
  view.waiting = scene.waiting || 0;
  if (scene.waiting !== undefined) {
    view.ended = scene.waiting === 0;
    if (view.scene) tell();
    return;
  }
  if (!scene.image) return clear();
  window.dispatchEvent(new CustomEvent("manymask-shown", { detail: scene.number }));
  const old = view.scene;
  const other = !old || old.image !== scene.image;
  if (other) view.picture = await load(scene.image);
  if (!scene.total) view.marks = scene.marks;
  if (other || scene.masks.length < view.grids.length || scene.masks[0] !== old.masks[0]) forget();
  const first = scene.masks.length > 0 && !(old && old.masks.length);
  [view.scene, view.ended] = [{ ...scene }, false];
  await outlinesOf(scene);
  fuse();
  tell();
  if (other) lookAtAll();
  if (first && scene.regions.length) lookAtRegions();
  if (other || first) intoSight();
  if (document.activeElement === document.body) find(".mm-main canvas").focus({ preventScroll: true });
  cut();
  count();
  paint();
  if (scene.forms.length) recall();
}

let turn = Promise.resolve();
const next = () => { turn = turn.then(() => show(props.value)).catch(console.error); };

find("#mm-stop").addEventListener("click", () => trigger("stop"));
find(".mm-remove").addEventListener("click", () => trigger("remove"));
let picking = 0;
for (const button of element.querySelectorAll(".mm-thumbs button")) {
  button.addEventListener("click", () => {
    clearTimeout(picking);
    picking = setTimeout(() => trigger("example", { number: Number(button.dataset.k) }), 150); // of two clicks, the last
  });
}
for (const each of element.querySelectorAll("canvas")) {
  each.addEventListener("pointermove", (event) => {
    if (!view.scene) return;
    const [x, y] = pixelAt(event);
    let text = x + ", " + y;
    if (view.mean) {
      const [width, height] = view.scene.grid;
      const i = Math.min(height - 1, Math.floor((y / view.scene.height) * height)) * width + Math.min(width - 1, Math.floor((x / view.scene.width) * width));
      const grids = counted();
      text += " · confidence " + (view.mean[i] / 255).toFixed(2) + " · in " + grids.filter((grid) => grid[i] >= 127.5).length + " of " + grids.length + " masks";
    }
    find(".mm-readout").textContent = text;
  });
  each.addEventListener("pointerleave", () => { find(".mm-readout").textContent = ""; });
}
// a drawing that failed or was stopped sends no last scene
window.addEventListener("manymask-ended", () => {
  turn = turn.then(() => {
    view.ended = true;
    if (view.scene) tell();
  });
});
watch("value", next);
next();
