// Thumbnails of several images. The server sends those that come into sight.
const find = (selector) => element.querySelector(selector);
const TOGETHER = 12; // thumbnails in one request
const strip = { stamp: 0, images: 0, at: 0, wanted: new Set(), asked: false, timer: 0 };
const item = (number) => find("ul").children[number - 1];

const watcher = new IntersectionObserver((entries) => {
  for (const { isIntersecting: near, target } of entries) {
    if (!near || target.dataset.got) continue;
    strip.wanted.add(Number(target.dataset.number));
  }
  ask();
}, { root: find("ul"), rootMargin: "0px 200px" });

function ask() {
  if (strip.asked || !strip.wanted.size) return;
  strip.asked = true;
  const numbers = [...strip.wanted].slice(0, TOGETHER);
  for (const number of numbers) strip.wanted.delete(number);
  trigger("thumbnails", { stamp: strip.stamp, numbers });
}

function make(number) {
  const made = document.createElement("li");
  made.dataset.number = number;
  made.innerHTML = '<button type="button"><img alt="" hidden><span></span></button>';
  made.firstChild.setAttribute("aria-label", "Image " + number);
  made.firstChild.addEventListener("click", () => choose(number));
  watcher.observe(made);
  return made;
}

function choose(number) {
  if (number < 1 || number > strip.images) return;
  mark(number);
  clearTimeout(strip.timer);
  strip.timer = setTimeout(() => trigger("choose", { number }), 200); // of several in a row, the last
}

function mark(number) {
  strip.at = number;
  if (!strip.images) return;
  for (const made of find("ul").children) made.firstChild.removeAttribute("aria-current");
  const current = item(number);
  if (!current) return;
  current.firstChild.setAttribute("aria-current", "true");
  const row = find("ul");
  row.scrollLeft += Math.min(0, current.offsetLeft - row.offsetLeft - row.scrollLeft) + Math.max(0, current.offsetLeft + current.offsetWidth - row.offsetLeft - row.scrollLeft - row.clientWidth);
  find(".mm-place").textContent = "Image " + number + "/" + strip.images;
  find(".mm-before").disabled = number <= 1;
  find(".mm-after").disabled = number >= strip.images;
}

function show(value) {
  if (!value || !value.stamp || value.stamp < strip.stamp) return;
  if (value.thumbnails) {
    for (const { number, name, image } of value.thumbnails) {
      const made = item(number);
      if (!made) continue;
      made.dataset.got = "1";
      made.querySelector("img").hidden = !image;
      if (image) made.querySelector("img").src = image;
      made.querySelector("span").textContent = name;
      made.firstChild.title = name;
      made.firstChild.setAttribute("aria-label", "Image " + number + ": " + name);
    }
    strip.asked = false;
    return ask();
  }
  Object.assign(strip, { stamp: value.stamp, images: value.images, asked: false });
  strip.wanted.clear();
  find("ul").replaceChildren(...Array.from({ length: value.images }, (_, k) => make(k + 1)));
  find(".mm-strip").hidden = !value.images;
  mark(strip.at || 1);
}

find(".mm-before").addEventListener("click", () => choose(strip.at - 1));
find(".mm-after").addEventListener("click", () => choose(strip.at + 1));
find("ul").addEventListener("keydown", (event) => {
  const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  const other = way && item(Number(event.target.closest("li").dataset.number) + way);
  if (!other) return;
  event.preventDefault();
  other.firstChild.focus();
});
window.addEventListener("manymask-shown", (event) => mark(event.detail));
window.addEventListener("manymask-accepted", (event) => {
  const made = item(event.detail);
  if (!made || made.classList.contains("mm-accepted")) return;
  made.classList.add("mm-accepted");
  made.firstChild.setAttribute("aria-label", made.firstChild.getAttribute("aria-label") + ", accepted");
});
watch("value", () => show(props.value));
show(props.value);
