// What the visitor makes of a drawing: masks left out, strokes of the brush. Numbers are estimates from the grid until the
// server has counted; what is saved is computed by the server alone.
const kept = new Map(); // edits of drawings that were left, by their masks: the same drawing shows them again
let asking = 0;

const edit = () => ({ left_out: [...view.leftOut].map((k) => k + 1), strokes: view.strokes });

// something has changed
function edited() {
  Object.assign(view.scene, { curve: [], agreement: null });
  view.mended = null;
  const key = view.scene.masks.join();
  if (view.leftOut.size || view.strokes.length) kept.set(key, { leftOut: [...view.leftOut], strokes: [...view.strokes] });
  else kept.delete(key);
  refresh();
  ask();
}

// the threshold moved: the curve of the consensus is known, the area after corrections is not
function moved() {
  view.mended = null;
  refresh();
  if (view.strokes.length) ask();
}

function ask() {
  view.changes += 1;
  find(".mm-areas").setAttribute("aria-busy", "true");
  clearTimeout(asking);
  asking = setTimeout(() => trigger("recount", { ...edit(), threshold: view.at, stamp: view.stamp, turn: view.changes }), 250);
}

// the server has counted
async function counting({ turn: asked, counted: found }) {
  if (asked !== view.changes) return; // something has changed since
  const { curve, agreement, promises, promised: outlines, warnings, corrected_area: mended } = found;
  Object.assign(view.scene, { curve, agreement, promises, promised: outlines, warnings });
  view.mended = mended;
  await outlinesOf(view.scene);
  tell();
  refresh();
  if (asked === view.changes) find(".mm-areas").setAttribute("aria-busy", "false");
}

// a finished drawing whose edits are still known
function recall() {
  const found = kept.get(view.scene.masks.join());
  if (!found || view.leftOut.size || view.strokes.length) return;
  view.leftOut = new Set(found.leftOut);
  view.strokes = [...found.strokes];
  fuse();
  edited();
}

function refresh() {
  cut();
  tellThreshold();
  tellBadges();
  tellBrush();
  count();
  tellSave();
  soon(paint);
}

function tellThreshold() {
  find(".mm-threshold output").textContent = view.at.toFixed(2);
  find(".mm-confidence .mm-scale em").style.left = 100 * view.at + "%";
  find(".mm-half").hidden = view.at === 0.5;
}

find("#mm-threshold").addEventListener("input", (event) => {
  view.at = Number(event.target.value);
  if (view.scene) soon(moved);
});
find(".mm-half").addEventListener("click", () => {
  find("#mm-threshold").value = view.at = 0.5;
  moved();
  find("#mm-threshold").focus();
});
