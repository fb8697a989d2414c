"use strict";
// Sort the rows by the column whose heading is selected; a second time, the other way round. Empty values come last.
const headings = [...document.querySelectorAll("th")];
const body = document.querySelector("tbody");
headings.forEach((heading, column) => {
  const button = heading.querySelector("button");
  button.addEventListener("click", () => {
    const now = heading.getAttribute("aria-sort");
    const way = now ? (now === "ascending" ? -1 : 1) : Number(button.dataset.first);
    headings.forEach((each) => each.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", way > 0 ? "ascending" : "descending");
    const words = button.dataset.key === "name";
    const value = (row) => row.cells[column].dataset.value;
    const rank = (row) => Number(row.cells[0].dataset.value);
    const compare = (a, b) => {
      const [x, y] = [value(a), value(b)];
      if ((x === "") !== (y === "")) return x === "" ? 1 : -1;
      const difference = words ? x.localeCompare(y, undefined, { numeric: true }) : x - y;
      return way * difference || rank(a) - rank(b);
    };
    body.append(...[...body.rows].sort(compare));
  });
});
