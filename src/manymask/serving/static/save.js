// Downloads: everything, or everything with the accepted mask.
function tellSave() {
  const { scene } = view;
  const ready = !working() && scene.forms.length > 0;
  find(".mm-download").disabled = find(".mm-accept").disabled = !ready;
  find(".mm-download").textContent = view.strokes.length ? "Download without corrections" : "Download";
  const forms = find("#mm-form");
  if (forms.dataset.held !== scene.forms.join()) {
    forms.replaceChildren(...scene.forms.map((name) => new Option(name, name)));
    forms.dataset.held = scene.forms.join();
  }
  const said = [];
  if (view.leftOut.size) said.push("without mask " + [...view.leftOut].map((k) => k + 1).sort((a, b) => a - b).join(", "));
  if (view.strokes.length) said.push("corrected with " + view.strokes.length + (view.strokes.length > 1 ? " strokes" : " stroke"));
  find(".mm-accepting").textContent = "Accepting saves the consensus at " + view.at.toFixed(2) + (said.length ? ", " + said.join(" and ") : "") + ", as “accepted”.";
}

function save(accepted) {
  trigger("save", { ...edit(), accepted, threshold: view.at, form: find("#mm-form").value, alpha: find("#mm-alpha").value, stamp: view.stamp });
  if (accepted) save.waiting = view.scene.number;
}
find(".mm-download").addEventListener("click", () => save(false));
find(".mm-accept").addEventListener("click", () => save(true));
// the thumbnail of an accepted image is marked
window.addEventListener("manymask-saved", () => {
  if (save.waiting) window.dispatchEvent(new CustomEvent("manymask-accepted", { detail: save.waiting }));
  save.waiting = 0;
});
