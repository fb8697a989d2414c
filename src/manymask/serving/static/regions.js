// Where a model of regions looks: squares about the marks of the visitor, each with an × in its corner.
// the region about a mark, moved to lie within the image: left, top, right, bottom
function around([x, y]) {
  const { crop, width, height } = view.scene;
  const [left, top] = [[x, width], [y, height]].map(([centre, side]) => Math.min(Math.max(centre - Math.floor(crop / 2), 0), Math.max(side - crop, 0)));
  return [left, top, Math.min(left + crop, width), Math.min(top + crop, height)];
}

// the middle of an × and half its side, in pixels of the image
const corner = (right, top, pixel) => [right - 13 * pixel, top + 13 * pixel, 12 * pixel];

function square(context, [left, top, right, bottom], pixel, removable) {
  for (const [ink, dash] of [["rgba(0,0,0,0.7)", []], ["#ffffff", [5 * pixel, 4 * pixel]]]) {
    [context.strokeStyle, context.lineWidth] = [ink, 1.5 * pixel];
    context.setLineDash(dash);
    context.strokeRect(left, top, right - left, bottom - top);
  }
  context.setLineDash([]);
  if (!removable) return;
  const [x, y, half] = corner(right, top, pixel);
  context.fillStyle = "rgba(0,0,0,0.75)";
  context.fillRect(x - half, y - half, 2 * half, 2 * half);
  [context.strokeStyle, context.lineWidth] = ["#ffffff", 2 * pixel];
  context.beginPath();
  for (const way of [1, -1]) {
    context.moveTo(x - 5 * pixel, y - way * 5 * pixel);
    context.lineTo(x + 5 * pixel, y + way * 5 * pixel);
  }
  context.stroke();
}

function mark(marks) {
  view.marks = marks;
  trigger("pick", { regions: marks.map((place) => place.join(",")).join("; ") });
  paint();
}

find(".mm-main canvas").addEventListener("click", (event) => {
  if (!view.scene || !view.scene.crop || touch.moved || brushing()) return;
  const [x, y] = pixelAt(event);
  const pixel = frame()[2] / event.target.getBoundingClientRect().width;
  const hit = view.marks.findLastIndex((place) => {
    const [, top, right] = around(place);
    const [across, down, half] = corner(right, top, pixel);
    return Math.abs(x + 0.5 - across) <= half && Math.abs(y + 0.5 - down) <= half;
  });
  if (hit >= 0) mark(view.marks.filter((_, k) => k !== hit));
  else if (!view.marks.some((place) => Math.hypot(x - place[0], y - place[1]) <= 3 * pixel)) mark([...view.marks, [x, y]]);
});
find(".mm-main canvas").addEventListener("keydown", (event) => {
  if (view.marks.length && !brushing() && ["Escape", "Delete", "Backspace"].includes(event.key)) mark(view.marks.slice(0, -1));
});
// what is typed is marked too
document.addEventListener("input", (event) => {
  if (!view.scene || !event.target.closest || !event.target.closest("#mm-regions")) return;
  view.marks = [...event.target.value.matchAll(/(\d+)\s*[, ]\s*(\d+)/g)].map((found) => [Number(found[1]), Number(found[2])]);
  paint();
});
