// What the masks promise: badges, and the inner and the outer outline.
// the inner and the outer outline of the chosen share, if one is chosen
function promised() {
  return view.promised[find("#mm-alpha").selectedIndex - 1] || [];
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

find("#mm-alpha").addEventListener("change", () => { tellOutlines(); paint(); });
// Escape puts an explanation away until the pointer or the focus moves on
find(".mm-badges").addEventListener("keydown", (event) => find(".mm-badges").classList.toggle("mm-quiet", event.key === "Escape"));
for (const kind of ["pointerleave", "focusout"]) find(".mm-badges").addEventListener(kind, () => find(".mm-badges").classList.remove("mm-quiet"));
