// What is seen of a scene (see scene.py). The server sends the masks; confidence, disagreement and the consensus at any
// threshold are worked out here, so that the slider answers at once.
const find = (selector) => element.querySelector(selector);
const CONFIDENCE = ["#00224e", "#123570", "#3b496c", "#575d6d", "#707173", "#8a8678", "#a59c74", "#c3b369", "#e1cc55", "#fee838"];
const DISAGREEMENT = ["#000004", "#1b0c41", "#4a0c6b", "#781c6d", "#a52c60", "#cf4446", "#ed6925", "#fb9b06", "#f7d13d", "#fcffa4"];
const BLANK = { scene: null, picture: null, grids: [], paths: [], mean: null, border: null, confidence: null, disagreement: null, promised: [], marks: [], waiting: 0 };
const view = { ...BLANK, hidden: new Set(), zoomed: true, at: 0.5, stamp: 0 };

const LUTS = { confidence: colours(CONFIDENCE), disagreement: colours(DISAGREEMENT) };
find(".mm-confidence .mm-scale i").style.background = "linear-gradient(90deg," + CONFIDENCE.join(",") + ")";
find(".mm-disagreement .mm-scale i").style.background = "linear-gradient(90deg," + DISAGREEMENT.join(",") + ")";

// confidence and disagreement, in [0, 255], from the masks so far
function fuse() {
  const count = view.grids.length;
  if (!count) return;
  const [width, height] = view.scene.grid;
  const mean = new Float32Array(width * height);
  const spread = new Float32Array(width * height);
  for (let i = 0; i < mean.length; i++) {
    let [sum, squares] = [0, 0];
    for (const grid of view.grids) {
      sum += grid[i];
      squares += grid[i] * grid[i];
    }
    mean[i] = sum / count;
    spread[i] = Math.sqrt(Math.max(0, squares / count - mean[i] * mean[i]));
  }
  view.mean = mean;
  view.confidence = heat(mean, width, height, LUTS.confidence, 255);
  view.disagreement = heat(spread, width, height, LUTS.disagreement, 127.5);
}

// the part of the picture that is shown: all of it, or the regions of interest with a margin
function frame() {
  const { width, height, regions, masks } = view.scene;
  if (!view.zoomed || !regions.length || !masks.length) return [0, 0, width, height];
  const box = [0, 1, 2, 3].map((k) => Math[k < 2 ? "min" : "max"](...regions.map((region) => region[k])));
  const side = Math.max(box[2] - box[0], box[3] - box[1]) * 1.15;
  const place = (low, high, size) => Math.max(0, Math.min((low + high - Math.min(side, size)) / 2, size - Math.min(side, size)));
  const [x, y] = [place(box[0], box[2], width), place(box[1], box[3], height)];
  return [x, y, Math.min(side, width), Math.min(side, height)];
}

// sizes a canvas for its place on the screen; gives its context with the picture's pixels as unit, and a pixel's size
function easel(canvas, tallest) {
  const [x, y, width, height] = frame();
  const room = canvas.parentElement.clientWidth;
  const shown = Math.min(room, (tallest * width) / height);
  const sharp = Math.min(3, window.devicePixelRatio || 1);
  [canvas.width, canvas.height] = [Math.round(shown * sharp), Math.round((shown * sharp * height) / width)];
  canvas.style.width = shown + "px";
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  const unit = canvas.width / width;
  context.setTransform(unit, 0, 0, unit, -x * unit, -y * unit);
  return [context, sharp / unit];
}

function stroke(context, path, pixel, colour, width, edge) {
  const { scene } = view;
  context.save();
  context.scale(scene.width / scene.grid[0], scene.height / scene.grid[1]);
  pixel *= scene.grid[0] / scene.width;
  context.lineCap = context.lineJoin = "round";
  if (edge) {
    [context.strokeStyle, context.lineWidth] = ["rgba(0,0,0,0.65)", (width + 2) * pixel];
    context.stroke(path);
  }
  [context.strokeStyle, context.lineWidth] = [colour, width * pixel];
  context.stroke(path);
  context.restore();
}

// the region about a mark, moved to lie within the image: left, top, right, bottom
function around([x, y]) {
  const { crop, width, height } = view.scene;
  const [left, top] = [[x, width], [y, height]].map(([centre, side]) => Math.min(Math.max(centre - Math.floor(crop / 2), 0), Math.max(side - crop, 0)));
  return [left, top, Math.min(left + crop, width), Math.min(top + crop, height)];
}

// the × of a square stands in its corner: its middle and half its side, in pixels of the image
const corner = (right, top, pixel) => [right - 10 * pixel, top + 10 * pixel, 9 * pixel];

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
    context.moveTo(x - 4 * pixel, y - way * 4 * pixel);
    context.lineTo(x + 4 * pixel, y + way * 4 * pixel);
  }
  context.stroke();
}

// the inner and the outer outline of the chosen share, if one is chosen
function promised() {
  return view.promised[find("#mm-alpha").selectedIndex - 1] || [];
}

const colour = (k) => view.scene.palette[k % view.scene.palette.length];

function paint() {
  const { scene } = view;
  if (!scene || !view.picture) return;
  const [context, pixel] = easel(find(".mm-main canvas"), 0.78 * window.innerHeight);
  context.drawImage(view.picture, 0, 0, scene.width, scene.height);
  view.paths.forEach((path, k) => {
    if (!view.hidden.has(k)) stroke(context, path, pixel, colour(k), 2, true);
  });
  if (view.border && !view.hidden.has("consensus")) stroke(context, view.border, pixel, "#ffffff", 3, true);
  for (const path of promised()) stroke(context, path, pixel, "#ffffff", 1.5, true);
  if (!view.marks.length) for (const region of scene.regions) square(context, region, pixel, false);
  for (const mark of view.marks) square(context, around(mark), pixel, true);
  for (const name of ["confidence", "disagreement"]) {
    if (!view[name]) continue;
    const [map, dot] = easel(find(".mm-" + name + " canvas"), 0.6 * window.innerHeight);
    map.drawImage(view[name], 0, 0, scene.width, scene.height);
    if (view.border) stroke(map, view.border, dot, "#ffffff", 1.5, true);
  }
}

function area(pixels, unit = true) {
  const { spacing } = view.scene;
  const value = spacing ? pixels * spacing[0] * spacing[1] : pixels;
  const digits = spacing && value < 100 ? 1 : 0;
  return value.toLocaleString("en", { maximumFractionDigits: digits, minimumFractionDigits: digits }) + (unit ? (spacing ? " mm²" : " px") : "");
}

// one row of the list of areas, made once and then only changed: a focused row keeps its focus
function row(list, k, name, swatch, pixels, widest) {
  let item = list.querySelector('[data-k="' + k + '"]');
  if (!item) {
    item = document.createElement("button");
    item.type = "button";
    item.dataset.k = k;
    item.innerHTML = "<i></i><span></span><u><b></b></u><data></data>";
    item.setAttribute("aria-pressed", "true");
    item.addEventListener("click", () => {
      if (!view.hidden.delete(k)) view.hidden.add(k);
      item.setAttribute("aria-pressed", String(!view.hidden.has(k)));
      paint();
    });
    list.append(item);
  }
  item.querySelector("i").style.background = swatch;
  item.querySelector("span").textContent = name;
  item.querySelector("b").style.width = (100 * pixels) / Math.max(1, widest) + "%";
  item.querySelector("b").style.background = swatch;
  item.querySelector("data").textContent = area(pixels);
}

function count() {
  const { scene } = view;
  const drawn = scene.areas;
  if (!drawn.length) return;
  const [across, down] = [scene.width / scene.grid[0], scene.height / scene.grid[1]];
  const held = scene.curve.length
    ? scene.curve[Math.round(view.at * 100)]
    : view.mean.reduce((sum, value) => sum + (value / 255 >= view.at), 0) * across * down;
  const list = find(".mm-areas");
  const widest = Math.max(held, ...drawn);
  row(list, "consensus", "Consensus", "#ffffff", held, widest);
  drawn.forEach((pixels, k) => row(list, k, "Mask " + (k + 1), colour(k), pixels, widest));
  const mean = drawn.reduce((a, b) => a + b, 0) / drawn.length;
  const deviation = Math.sqrt(drawn.reduce((a, b) => a + (b - mean) ** 2, 0) / Math.max(1, drawn.length - 1));
  let text = "Masks: mean " + area(mean, false) + " ± " + area(deviation) + ", from " + area(Math.min(...drawn), false) + " to " + area(Math.max(...drawn));
  if (scene.agreement !== null) text += ". Two of them overlap by " + Math.round(100 * scene.agreement) + " % on average (IoU)";
  find(".mm-summary").textContent = text + ".";
  const said = "Consensus at " + view.at.toFixed(2) + ": " + area(held) + ". " + text;
  find(".mm-main canvas").setAttribute("aria-label", scene.name + " with the outlines of " + drawn.length + " masks. " + said);
  find(".mm-confidence canvas").setAttribute("aria-label", "Map of the confidence. " + said);
  find(".mm-disagreement canvas").setAttribute("aria-label", "Map of the disagreement. " + said);
}

function cut() {
  if (view.mean) view.border = outline(view.mean, ...view.scene.grid, view.at * 255);
  find(".mm-threshold output").textContent = view.at.toFixed(2);
  find(".mm-confidence .mm-scale em").style.left = 100 * view.at + "%";
}

const percent = (share) => (100 * share).toFixed(share > 0 && share < 0.01 ? 1 : 0) + " %";

// what is promised, in words: [text, explanation, class]
function badges() {
  const { promises, regions } = view.scene;
  if (!promises.calibrated) return promises.why_not ? [["Not calibrated", promises.why_not, "mm-doubt"]] : [];
  const { dice, dice_low: low, dice_high: high, failure, presence, foreign, like_training: like } = promises.worst;
  const moved = Math.abs(view.at - promises.dice_threshold) > 1e-6;
  const cut = promises.dice_threshold.toFixed(2);
  const found = [[
    (failure >= 0.5 ? "⚠ " : "") + "Predicted Dice " + (moved ? "at threshold " + cut + ": " : "") + dice.toFixed(2) + " (" + low.toFixed(2) + " – " + high.toFixed(2) + ")"
      + (regions.length > 1 ? ", worst of " + regions.length + " regions" : "") + (moved ? "; not for " + view.at.toFixed(2) : ""),
    "Of ten such images, about nine have a Dice inside the interval. The Dice is below 0.7 with a probability of " + percent(failure) + ". It holds for the consensus at threshold "
      + cut + " alone, on images like those of the calibration (" + promises.on + ").",
    (failure >= 0.5 ? "mm-doubt" : "") + (moved ? " mm-off-threshold" : ""),
  ]];
  if (presence !== null) {
    const rare = presence < 0.5;
    found.push([(rare ? "⚠ Nothing may be here: lesion " : "Lesion present: ") + percent(presence),
      "The probability that there is a lesion at all, on images like those of the calibration.", rare ? "mm-doubt" : ""]);
  }
  if (foreign !== null) {
    found.push([foreign ? "⚠ Unlike the training images" : "Like the training images",
      "Of images like the training images, " + percent(like) + " lie at least this far off." + (foreign ? " What is predicted may not hold." : ""), foreign ? "mm-doubt" : ""]);
  }
  return found;
}

// made once for each text: a focused badge keeps its focus
function tellBadges() {
  const list = find(".mm-badges");
  const said = view.scene.promises ? badges() : [];
  list.hidden = !said.length;
  while (list.children.length > said.length) list.lastChild.remove();
  said.forEach(([text, why, kind], k) => {
    if (!list.children[k]) {
      const item = document.createElement("li");
      item.innerHTML = '<button type="button" aria-describedby="mm-why-' + k + '"></button><span role="tooltip" id="mm-why-' + k + '"></span>';
      list.append(item);
    }
    list.children[k].className = kind.trim();
    [list.children[k].firstChild.textContent, list.children[k].lastChild.textContent] = [text, why];
  });
}

function tellOutlines() {
  const outlines = view.scene.promises.outlines || [];
  const select = find("#mm-alpha");
  find(".mm-promised").hidden = !outlines.length;
  const shares = outlines.map(({ alpha }) => "for at most " + percent(alpha));
  if (select.dataset.held !== shares.join()) {
    select.replaceChildren(new Option("hidden", ""), ...outlines.map(({ alpha }, k) => new Option(shares[k], alpha)));
    select.dataset.held = shares.join();
  }
  const chosen = outlines[select.selectedIndex - 1];
  find(".mm-promised p").textContent = chosen
    ? "Dashed. On average, at most " + percent(chosen.alpha) + " of the inner outline (" + area(chosen.inner_area) + ") is no lesion, and at most " + percent(chosen.alpha)
      + " of the lesion lies outside of the outer one (" + area(chosen.outer_area) + ")."
    : "";
}

function tell() {
  const { scene } = view;
  const done = scene.masks.length;
  const waiting = view.waiting > 0 && !view.ended;
  const working = waiting || (scene.total > 0 && scene.progress < 1 && !view.ended);
  document.body.classList.toggle("mm-busy", working);
  find(".mm").classList.toggle("mm-working", working);
  find(".mm-progress i").style.width = 100 * scene.progress + "%";
  find(".mm-progress").setAttribute("aria-valuenow", String(Math.round(100 * scene.progress)));
  const name = scene.name + (scene.place ? " (" + scene.place + ")" : "");
  find(".mm-status").textContent = waiting
    ? "Waiting: " + (view.waiting > 1 ? view.waiting + " drawings come" : "one drawing comes") + " before yours …"
    : working ? "Drawing mask " + Math.min(done + 1, scene.total) + " of " + scene.total + " …"
    : done ? name + ": " + done + (done > 1 ? " masks" : " mask") + (done < scene.total ? ", then stopped" : " in " + scene.seconds.toFixed(1) + " s")
    : name + ", " + scene.width + " × " + scene.height + " px";
  find(".mm-warnings").replaceChildren(...scene.warnings.map((text) => Object.assign(document.createElement("li"), { textContent: text })));
  tellBadges();
  tellOutlines();
  find(".mm-hint").textContent = done ? "one colour per mask, the consensus in white"
    : scene.crop && Math.max(scene.width, scene.height) > scene.crop ? "click where to look, then draw" : "";
  find(".mm-zoom").hidden = !(done && scene.regions.length && Math.max(scene.width, scene.height) > scene.crop);
  find(".mm-main").classList.toggle("mm-clickable", scene.crop > 0);
  find(".mm-empty").hidden = true;
  find(".mm-stage").hidden = false;
  find(".mm-result").hidden = find(".mm-threshold").hidden = !done;
  find(".mm-save").classList.toggle("mm-off", working || !scene.forms.length);
  find(".mm-download").disabled = working || !scene.forms.length;
  for (const map of element.querySelectorAll(".mm-map")) map.hidden = !done;
  const forms = find("#mm-form");
  if (forms.dataset.held !== scene.forms.join()) {
    forms.replaceChildren(...scene.forms.map((name) => new Option(name, name)));
    forms.dataset.held = scene.forms.join();
  }
}

// back to the page as it was at first
function clear() {
  Object.assign(view, BLANK, { grids: [], paths: [], marks: [] });
  view.hidden.clear();
  document.body.classList.remove("mm-busy");
  find(".mm-areas").replaceChildren();
  find(".mm-download").disabled = true;
  find(".mm-empty").hidden = false;
  find(".mm-stage").hidden = true;
}

let turn = Promise.resolve();
async function show(scene) {
  if (!scene || !scene.stamp || scene.stamp < view.stamp) return;
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
  if (!scene.total) view.marks = [];
  if (other || scene.masks.length < view.grids.length || scene.masks[0] !== old.masks[0]) {
    Object.assign(view, { grids: [], paths: [], mean: null, border: null, confidence: null, disagreement: null });
    view.hidden.clear();
    find(".mm-areas").replaceChildren();
  }
  [view.scene, view.ended] = [scene, false];
  for (const mask of scene.masks.slice(view.grids.length)) {
    const grid = await inflate(mask);
    view.grids.push(grid);
    view.paths.push(outline(grid, ...scene.grid, 127.5));
  }
  const dashed = (grid) => outline(grid, ...scene.grid, 127.5, dashes(scene.grid[0]));
  view.promised = await Promise.all(scene.promised.map(async (pair) => (await Promise.all(pair.map(inflate))).map(dashed)));
  fuse();
  tell();
  cut();
  count();
  paint();
}
const next = () => { turn = turn.then(() => show(props.value)).catch(console.error); };

let due = 0;
const soon = (work) => { cancelAnimationFrame(due); due = requestAnimationFrame(work); };
find("#mm-threshold").addEventListener("input", (event) => {
  view.at = Number(event.target.value);
  if (view.scene) soon(() => { cut(); tellBadges(); count(); paint(); });
});
find(".mm-zoom").addEventListener("click", (event) => {
  view.zoomed = !view.zoomed;
  event.target.setAttribute("aria-pressed", String(view.zoomed));
  paint();
});
find(".mm-download").addEventListener("click", () => trigger("save", { threshold: view.at, form: find("#mm-form").value, alpha: find("#mm-alpha").value, stamp: view.scene.stamp }));
find("#mm-alpha").addEventListener("change", () => { tellOutlines(); paint(); });
// Escape puts an explanation away until the pointer or the focus moves on
find(".mm-badges").addEventListener("keydown", (event) => find(".mm-badges").classList.toggle("mm-quiet", event.key === "Escape"));
for (const kind of ["pointerleave", "focusout"]) find(".mm-badges").addEventListener(kind, () => find(".mm-badges").classList.remove("mm-quiet"));
find(".mm-remove").addEventListener("click", () => trigger("remove"));
for (const button of element.querySelectorAll(".mm-examples button")) {
  button.addEventListener("click", () => trigger("example", { number: Number(button.dataset.k) }));
}

function pixelAt(event) {
  const box = event.target.getBoundingClientRect();
  const [x, y, width, height] = frame();
  const place = [x + ((event.clientX - box.left) / box.width) * width, y + ((event.clientY - box.top) / box.height) * height];
  return place.map((value, k) => Math.max(0, Math.min(Math.floor(value), (k ? view.scene.height : view.scene.width) - 1)));
}
function mark(marks) {
  view.marks = marks;
  trigger("pick", { regions: marks.map((place) => place.join(",")).join("; ") });
  paint();
}
find(".mm-main canvas").addEventListener("click", (event) => {
  if (!view.scene || !view.scene.crop) return;
  const [x, y] = pixelAt(event);
  const pixel = frame()[2] / event.target.getBoundingClientRect().width;
  const hit = view.marks.findLastIndex((place) => {
    const [, top, right] = around(place);
    const [across, down, half] = corner(right, top, pixel);
    return Math.abs(x + 0.5 - across) <= half && Math.abs(y + 0.5 - down) <= half;
  });
  mark(hit < 0 ? [...view.marks, [x, y]] : view.marks.filter((_, k) => k !== hit));
});
find(".mm-main canvas").addEventListener("keydown", (event) => {
  if (view.marks.length && ["Escape", "Delete", "Backspace"].includes(event.key)) mark(view.marks.slice(0, -1));
});
// what is typed is marked too
document.addEventListener("input", (event) => {
  if (!view.scene || !event.target.closest || !event.target.closest("#mm-regions")) return;
  view.marks = [...event.target.value.matchAll(/(\d+)\s*[, ]\s*(\d+)/g)].map((found) => [Number(found[1]), Number(found[2])]);
  paint();
});

// an image may be dropped anywhere, or pasted
function hand(files) {
  const input = document.querySelector("#mm-upload input[type=file]");
  if (!input || !files.length) return false;
  input.files = files;
  input.dispatchEvent(new Event("change", { bubbles: true }));
  return true;
}
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  const entries = entriesOf(event.dataTransfer);
  const folder = entries.some((entry) => entry.isDirectory);
  if (!folder && event.target.closest && event.target.closest("#mm-upload")) return;
  event.preventDefault();
  if (!folder) return hand(event.dataTransfer.files);
  event.stopPropagation(); // the field itself takes no folders
  handFolders(entries);
}, true);
document.addEventListener("paste", (event) => hand(event.clipboardData.files));

for (const canvas of element.querySelectorAll("canvas")) {
  canvas.addEventListener("pointermove", (event) => {
    if (!view.scene) return;
    const [x, y] = pixelAt(event);
    let text = x + ", " + y;
    if (view.mean) {
      const [width, height] = view.scene.grid;
      const i = Math.min(height - 1, Math.floor((y / view.scene.height) * height)) * width + Math.min(width - 1, Math.floor((x / view.scene.width) * width));
      const held = view.grids.filter((grid) => grid[i] >= 127.5).length;
      text += " · confidence " + (view.mean[i] / 255).toFixed(2) + " · in " + held + " of " + view.grids.length + " masks";
    }
    find(".mm-readout").textContent = text;
  });
  canvas.addEventListener("pointerleave", () => { find(".mm-readout").textContent = ""; });
}
new ResizeObserver(() => soon(paint)).observe(element);
// a drawing that failed or was stopped sends no last scene
window.addEventListener("manymask-ended", () => {
  turn = turn.then(() => {
    view.ended = true;
    if (view.scene) tell();
  });
});
watch("value", next);
next();
