// The list of all pictures (see listing.py). The server sends the rows; they are sorted here.
const find = (selector) => element.querySelector(selector);
const share = (value) => (value === null ? "" : (100 * value).toFixed(value > 0 && value < 0.01 ? 1 : 0) + " %");
// heading, key, direction of the first click, text of a cell, and whether only a calibrated model has it
const COLUMNS = [
  ["Order", "order", 1, (row) => String(row.order) + (row.review ? " · review" : "")],
  ["Image", "name", 1, (row) => row.name],
  ["Predicted Dice", "dice", 1, (row) => (row.dice === null ? "" : row.dice.toFixed(2) + " (" + row.dice_low.toFixed(2) + " – " + row.dice_high.toFixed(2) + ")"), true],
  ["Failure", "failure", -1, (row) => share(row.failure), true],
  ["Lesion present", "presence", 1, (row) => share(row.presence), true],
  ["Like training", "like_training", 1, (row) => (row.foreign ? "⚠ unlike, " : "") + share(row.like_training), true],
  ["Agreement", "agreement", 1, (row) => (row.agreement === null ? "" : row.agreement.toFixed(2))],
];
const list = { stamp: 0, value: null, key: "order", way: 1, at: 0, ended: false, items: new Map() };

function head(columns) {
  const row = find("thead tr");
  if (row.dataset.held !== columns.map(([label]) => label).join()) {
    row.dataset.held = columns.map(([label]) => label).join();
    row.replaceChildren(...columns.map(([label, key, first]) => {
      const cell = Object.assign(document.createElement("th"), { scope: "col", innerHTML: '<button type="button"></button>' });
      cell.setAttribute("role", "columnheader");
      cell.dataset.key = key;
      cell.firstChild.textContent = label;
      cell.firstChild.addEventListener("click", () => {
        [list.way, list.key] = [list.key === key ? -list.way : first, key];
        fill(columns);
      });
      return cell;
    }));
  }
  for (const cell of row.children) {
    if (cell.dataset.key === list.key) cell.setAttribute("aria-sort", list.way > 0 ? "ascending" : "descending");
    else cell.removeAttribute("aria-sort");
  }
}

// made once for each picture: a focused row keeps its focus
function item(row, columns) {
  const made = document.createElement("tr");
  made.setAttribute("role", "row");
  for (const [label, key] of columns) {
    const cell = document.createElement("td");
    cell.setAttribute("role", "cell");
    [cell.className, cell.dataset.label] = ["mm-" + key, label];
    if (key === "name") cell.innerHTML = '<button type="button"></button><span></span>';
    made.append(cell);
  }
  made.addEventListener("click", () => {
    trigger("choose", { number: row.number });
    const viewer = document.querySelector("#mm-viewer");
    if (viewer.getBoundingClientRect().top > 0.6 * innerHeight) viewer.scrollIntoView();
  });
  list.items.set(row.number, made);
  return made;
}

function compare(a, b) {
  if (list.key === "name") return list.way * a.name.localeCompare(b.name, undefined, { numeric: true }) || a.order - b.order;
  const [x, y] = [a, b].map((row) => (row.error ? null : row[list.key]));
  if ((x === null) !== (y === null)) return x === null ? 1 : -1; // what is not known comes last
  return list.way * (x - y) || a.order - b.order;
}

function fill(columns) {
  const { rows, review } = list.value;
  head(columns);
  const ranked = [...rows].sort((a, b) => (a.doubt === null) - (b.doubt === null) || b.doubt - a.doubt || a.number - b.number);
  ranked.forEach((row, k) => Object.assign(row, { order: k + 1, review: k < review }));
  const body = find("tbody");
  ranked.sort(compare).forEach((row, k) => {
    const made = list.items.get(row.number) || item(row, columns);
    columns.forEach(([, key, , text], column) => {
      const cell = made.children[column];
      const said = row.error && key === "order" ? "–" : text(row);
      const place = key === "name" ? cell.firstChild : cell;
      if (place.textContent !== said) place.textContent = said;
      if (key === "name") cell.lastChild.textContent = row.error;
    });
    made.classList.toggle("mm-review", row.review);
    made.classList.toggle("mm-foreign", Boolean(row.foreign));
    made.classList.toggle("mm-failed", Boolean(row.error));
    if (body.children[k] !== made) body.insertBefore(made, body.children[k] || null);
  });
  mark();
}

function mark() {
  for (const [number, made] of list.items) {
    if (number === list.at) made.setAttribute("aria-current", "true");
    else made.removeAttribute("aria-current");
  }
}

function status({ images, kind, rows, ended, waiting, failed, drawn_with: made }, working) {
  const what = kind.toLowerCase() + "s";
  if (!rows) return images + " " + what + ": list all of them, the most doubtful first.";
  if (working && waiting) return "Waiting: " + (waiting > 1 ? waiting + " drawings come" : "one drawing comes") + " before the next " + kind.toLowerCase() + " …";
  if (working) return "Segmenting " + kind.toLowerCase() + " " + Math.min(rows.length + 1, images) + " of " + images + " …";
  const why = { stopped: "Stopped: ", late: "Stopped after 55 minutes: ", whole: "" }[ended] ?? "Ended early: ";
  const lost = failed ? " " + failed + " could not be segmented." : "";
  return why + (rows.length - failed) + " of " + images + " " + what + " segmented, " + made + "." + lost;
}

function show(value) {
  if (!value || !value.stamp || value.stamp < list.stamp) return;
  if (value.stamp > list.stamp) {
    Object.assign(list, { stamp: value.stamp, key: "order", way: 1, ended: false });
    list.items.clear();
    find("tbody").replaceChildren();
  }
  list.value = value;
  tell();
}

function tell() {
  const { value } = list;
  if (!value) return;
  const { images, kind, rows } = value;
  const working = Boolean(rows) && !value.ended && !list.ended;
  find(".mm-list").hidden = images < 2;
  if (images < 2) return;
  find(".mm").classList.toggle("mm-working", working);
  const done = rows ? (100 * rows.length) / images : 0;
  find(".mm-progress i").style.width = done + "%";
  find(".mm-progress").setAttribute("aria-valuenow", String(Math.round(done)));
  find(".mm-list-status").textContent = status(value, working);
  find(".mm-all").textContent = (rows ? "Segment all again" : "Segment all " + images + " " + kind.toLowerCase() + "s");
  find(".mm-all").hidden = working;
  find(".mm-list-stop").hidden = !working;
  const promise = (value.promise || []).map((text) => Object.assign(document.createElement("p"), { textContent: text }));
  find(".mm-promise").replaceChildren(...promise);
  find(".mm-table").hidden = !rows || !rows.length;
  if (!rows || !rows.length) return;
  find("caption").textContent = (value.calibrated ? "Most doubtful first" : "Least agreement first") + ". A heading sorts, a row shows its outlines.";
  fill(COLUMNS.filter(([, , , , promised]) => value.calibrated || !promised));
}

find(".mm-all").addEventListener("click", () => trigger("all"));
find(".mm-list-stop").addEventListener("click", () => trigger("stop"));
window.addEventListener("manymask-shown", (event) => {
  list.at = event.detail;
  mark();
});
// a list that failed sends no last value
window.addEventListener("manymask-list-ended", () => {
  list.ended = true;
  tell();
});
watch("value", () => show(props.value));
show(props.value);
