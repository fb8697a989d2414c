// The brush that corrects the consensus. A stroke is what the server is sent (see correction.py); what is shown of it here
// is worked out on the grid of the masks.
const STEEP = 60; // levels per pixel of the grid, at the border of a stroke: outlines stay smooth
const tool = { mode: "move", stroke: null, at: null, byKey: false };
const brushing = () => tool.mode !== "move" && Boolean(view.mean) && !working();
const painting = (event) => brushing() && event.target === find(".mm-main canvas");
const shortSide = () => Math.min(view.scene.width, view.scene.height);
const radius = () => Math.max(0.5, (shortSide() / 6) * (Number(find("#mm-size").value) / 100) ** 2);

// works one stroke, or what lies behind its point `from`, into a grid
function brush(grid, { add, radius: wide, points }, from = 0) {
  const [width, height] = view.scene.grid;
  const [across, down] = [width / view.scene.width, height / view.scene.height];
  const reach = wide * across;
  const level = view.at * 255;
  for (let k = from; k < Math.max(1, points.length - 1); k++) {
    const [a, b] = [points[k], points[Math.min(k + 1, points.length - 1)]].map(([x, y]) => [x * across, y * down]);
    const [dx, dy] = [b[0] - a[0], b[1] - a[1]];
    const length = dx * dx + dy * dy;
    const low = (way) => Math.max(0, Math.floor(Math.min(a[way], b[way]) - reach) - 1);
    const high = (way, side) => Math.min(side, Math.ceil(Math.max(a[way], b[way]) + reach) + 1);
    for (let y = low(1); y < high(1, height); y++) {
      for (let x = low(0); x < high(0, width); x++) {
        const [px, py] = [x + 0.5 - a[0], y + 0.5 - a[1]];
        const along = length ? Math.max(0, Math.min(1, (px * dx + py * dy) / length)) : 0;
        const inside = reach - Math.hypot(px - along * dx, py - along * dy);
        if (inside < -1) continue;
        const i = y * width + x;
        grid[i] = add ? Math.max(grid[i], Math.min(255, level + inside * STEEP)) : Math.min(grid[i], Math.max(0, level - (inside + 0.001) * STEEP));
      }
    }
  }
}

function beginStroke(place, add = tool.mode === "add") {
  tool.stroke = { add, radius: radius(), points: [place] };
  view.corrected = view.corrected || view.mean.slice();
  brush(view.corrected, tool.stroke);
  showStroke();
}

function continueStroke(place, last = false) {
  const { points, radius: wide } = tool.stroke;
  const before = points[points.length - 1];
  const pixel = frame()[2] / find(".mm-main canvas").clientWidth;
  if (Math.hypot(place[0] - before[0], place[1] - before[1]) < (last ? 0.1 * pixel : Math.max(pixel, wide / 2))) return;
  points.push(place);
  brush(view.corrected, tool.stroke, points.length - 2);
  showStroke();
}

function endStroke(place = null) {
  if (!tool.stroke) return;
  if (place) continueStroke(place, true);
  view.strokes.push(tool.stroke);
  tool.stroke = null;
  edited();
}

// two fingers move the picture: what the first one began is no stroke
function dropStroke() {
  if (!tool.stroke) return;
  tool.stroke = null;
  cut();
  soon(paint);
}

function showStroke() {
  view.correctedBorder = outline(view.corrected, ...view.scene.grid, view.at * 255);
  soon(paint);
}

// the circle of the brush under the pointer
function paintBrush(context, pixel) {
  if (!brushing() || !tool.at) return;
  for (const [ink, width] of [["rgba(0,0,0,0.8)", 3], ["#ffffff", 1.25]]) {
    context.beginPath();
    context.arc(...tool.at, radius(), 0, 2 * Math.PI);
    if (tool.byKey) {
      context.moveTo(tool.at[0] - 4 * pixel, tool.at[1]);
      context.lineTo(tool.at[0] + 4 * pixel, tool.at[1]);
    }
    [context.strokeStyle, context.lineWidth] = [ink, width * pixel];
    context.stroke();
  }
}

function choose(mode) {
  dropStroke();
  tool.mode = mode;
  tellBrush();
  soon(paint);
}

function tellBrush() {
  const ready = Boolean(view.mean) && !working();
  for (const button of element.querySelectorAll(".mm-mode")) {
    button.setAttribute("aria-pressed", String(button.dataset.mode === (ready ? tool.mode : "move")));
    button.disabled = !ready;
  }
  find(".mm-tools").hidden = !brushing();
  find(".mm-main").classList.toggle("mm-brushing", brushing());
  if (!view.scene) return;
  find(".mm-size output").textContent = Math.max(1, Math.round(2 * radius())) + " px";
  find(".mm-undo").disabled = find(".mm-undo-all").disabled = !view.strokes.length;
}

function undo() {
  if (!view.strokes.pop()) return;
  edited();
}

const board = find(".mm-main canvas");
board.addEventListener("pointerdown", (event) => {
  if (!painting(event) || event.button || fingers.size > 1) return;
  board.setPointerCapture(event.pointerId);
  tool.byKey = false;
  beginStroke(placeAt(event));
});
board.addEventListener("pointermove", (event) => {
  if (!painting(event)) return;
  [tool.at, tool.byKey] = [placeAt(event), false];
  if (tool.stroke) for (const each of event.getCoalescedEvents ? event.getCoalescedEvents() : [event]) continueStroke(placeAt({ target: board, clientX: each.clientX, clientY: each.clientY }));
  soon(paint);
});
board.addEventListener("pointerup", (event) => { if (tool.stroke) endStroke(placeAt(event)); });
board.addEventListener("pointercancel", dropStroke);
board.addEventListener("pointerleave", () => {
  if (tool.byKey) return;
  tool.at = null;
  soon(paint);
});

// with the keyboard: arrows move the brush, the space bar dabs
board.addEventListener("keydown", (event) => {
  if (!view.scene) return;
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z" && brushing()) {
    event.preventDefault();
    return undo();
  }
  if (!brushing() || event.ctrlKey || event.metaKey || event.altKey) return;
  const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (event.key === "Escape") choose("move");
  else if (step) {
    tool.at = (tool.at || [camera.x, camera.y]).map((value, k) => Math.max(0, Math.min(value + step[k] * Math.max(1, radius() / 2), k ? view.scene.height : view.scene.width)));
    tool.byKey = true;
    soon(paint);
  } else if (event.key === " ") {
    [tool.at, tool.byKey] = [tool.at || [camera.x, camera.y], true];
    beginStroke(tool.at);
    endStroke();
  } else return;
  event.preventDefault();
  event.stopImmediatePropagation(); // the picture stays where it is
}, true);
for (const button of element.querySelectorAll(".mm-mode")) button.addEventListener("click", () => choose(button.dataset.mode));
find("#mm-size").addEventListener("input", () => { tellBrush(); soon(paint); });
find(".mm-undo").addEventListener("click", undo);
find(".mm-undo-all").addEventListener("click", () => {
  view.strokes = [];
  edited();
});
