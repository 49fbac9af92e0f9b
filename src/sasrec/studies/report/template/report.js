"use strict";
// Tables: a click on a heading sorts by it, numbers by data-value; a missing value comes last.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") !== "descending";
    const text = (row) => row.cells[column].textContent;
    const value = (row) => row.cells[column].dataset.value;
    const order = (one, other) => {
      if (column === 0) return text(one).localeCompare(text(other)) * (down ? 1 : -1);
      if (value(one) === "" || value(other) === "") return (value(one) === "") - (value(other) === "");
      return (value(one) - value(other)) * (down ? -1 : 1);
    };
    heads.forEach((each) => each.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const body = table.tBodies[0];
    [...body.rows].sort(order).forEach((row) => body.append(row));
  }));
}
// Figures: a chip hides and shows the lines of a cell; the pointer over a chip, a row or a line fades the others.
const marks = [...document.querySelectorAll('figure [class^="cell-"]')];
const cellOf = (mark) => mark.classList[0].slice("cell-".length);
const highlight = (cell) => marks.forEach(
  (mark) => mark.classList.toggle("faint", cell !== null && cellOf(mark) !== cell));
for (const chip of document.querySelectorAll(".chips button")) {
  chip.addEventListener("click", () => {
    const shown = chip.getAttribute("aria-pressed") === "false";
    chip.setAttribute("aria-pressed", String(shown));
    marks.forEach((mark) => cellOf(mark) === chip.dataset.cell && mark.classList.toggle("off", !shown));
  });
}
for (const one of document.querySelectorAll("[data-cell]")) {
  one.addEventListener("pointerenter", () => highlight(one.dataset.cell));
  one.addEventListener("pointerleave", () => highlight(null));
}
for (const mark of marks) {
  mark.addEventListener("pointerenter", () => highlight(cellOf(mark)));
  mark.addEventListener("pointerleave", () => highlight(null));
}
