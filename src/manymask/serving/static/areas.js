// The list of areas: the consensus, and every mask, which can be hidden from the picture and left out of the consensus.

const million = () => !view.scene.spacing && Math.max(...view.scene.areas) >= 1e6; // pixels that nobody reads one by one
function area(pixels, unit = true) {
  const { spacing } = view.scene;
  if (million()) return (pixels / 1e6).toFixed(2) + (unit ? " Mpx" : "");
  const value = spacing ? pixels * spacing[0] * spacing[1] : pixels;
  const digits = spacing && value < 100 ? 1 : 0;
  return value.toLocaleString("en", { maximumFractionDigits: digits, minimumFractionDigits: digits }) + (unit ? (spacing ? " mm²" : " px") : "");
}

// made once and then only changed: what has the focus keeps it
function makeRow(k, name) {
  const item = document.createElement("div");
  item.className = "mm-row";
  item.dataset.row = k;
  item.innerHTML = '<label class="mm-counts"><input type="checkbox" checked></label><button type="button" aria-pressed="true"><i></i><span></span><u><b></b></u><data></data></button>';
  const [box, button] = [item.querySelector("input"), item.querySelector("button")];
  button.dataset.k = k;
  button.addEventListener("click", () => {
    if (!view.hidden.delete(k)) view.hidden.add(k);
    button.setAttribute("aria-pressed", String(!view.hidden.has(k)));
    paint();
  });
  if (typeof k === "number") {
    box.setAttribute("aria-label", name + " counts for the consensus");
    box.addEventListener("change", () => leaveOut(k, !box.checked));
  } else box.parentElement.remove();
  find(".mm-areas").append(item);
  return item;
}

function row(k, name, swatch, pixels, widest) {
  const item = find('.mm-areas [data-row="' + k + '"]') || makeRow(k, name);
  item.classList.toggle("mm-left-out", view.leftOut.has(k));
  const box = item.querySelector("input");
  if (box) [box.checked, box.disabled] = [!view.leftOut.has(k), working() || (!view.leftOut.has(k) && counted().length === 1)];
  item.querySelector("i").style.background = swatch;
  item.querySelector("span").textContent = name;
  item.querySelector("b").style.width = (100 * pixels) / Math.max(1, widest) + "%";
  item.querySelector("b").style.background = swatch;
  item.querySelector("data").textContent = area(pixels);
  item.querySelector("data").title = million() ? Math.round(pixels).toLocaleString("en") + " px" : "";
}

// the last mask that counts stays
function leaveOut(k, out) {
  if (out) view.leftOut.add(k);
  else view.leftOut.delete(k);
  fuse();
  edited();
}

function count() {
  const { scene } = view;
  if (!scene.areas.length) return;
  const agreed = scene.curve.length ? scene.curve[Math.round(view.at * 100)] : held(view.mean);
  const kept = scene.areas.filter((_, k) => !view.leftOut.has(k));
  const mended = view.corrected ? view.mended ?? held(view.corrected) : null;
  const widest = Math.max(agreed, mended || 0, ...scene.areas);
  row("consensus", view.corrected ? "Corrected" : "Consensus", "#ffffff", view.corrected ? mended : agreed, widest);
  scene.areas.forEach((pixels, k) => row(k, "Mask " + (k + 1), colour(k), pixels, widest));
  const mean = kept.reduce((a, b) => a + b, 0) / kept.length;
  const deviation = Math.sqrt(kept.reduce((a, b) => a + (b - mean) ** 2, 0) / Math.max(1, kept.length - 1));
  let text = (view.leftOut.size ? kept.length + " of " + scene.areas.length + " masks" : "Masks") + ": mean " + area(mean, false) + " ± " + area(deviation)
    + ", from " + area(Math.min(...kept), false) + " to " + area(Math.max(...kept));
  if (scene.agreement !== null && kept.length > 1) text += ". Two of them overlap by " + Math.round(100 * scene.agreement) + " % on average (IoU)";
  text += ". The consensus covers " + percent((view.corrected ? mended : agreed) / (scene.width * scene.height)) + " of the image";
  find(".mm-summary").textContent = text + ".";
  const said = "Consensus at " + view.at.toFixed(2) + ": " + area(agreed) + (view.corrected ? ", corrected: " + area(mended) : "") + ". " + text;
  find(".mm-main canvas").setAttribute("aria-label", scene.name + " with the outlines of " + scene.areas.length + " masks. " + said);
  find(".mm-confidence canvas").setAttribute("aria-label", "Map of the confidence. " + said);
  find(".mm-disagreement canvas").setAttribute("aria-label", "Map of the disagreement. " + said);
}
