// Filters on columns of the catalogue: an item must pass all of them.

import { announce, fill, h, iconButton, toast } from "./dom.js";
import { change, state } from "./state.js";
import { number, t } from "./texts.js";

const MOST = 20; // that the server accepts
const SIGNS = { "=": "=", "!=": "≠", "<": "<", "<=": "≤", ">": ">", ">=": "≥" };
const NUMERIC = /int|float|double|decimal|number|real/i;
const BOOLEAN = /bool/i; // the server compares with texts and numbers only

/** Return the columns, {name: type}, that all models have and a filter can compare. */
export function columnsOf(models) {
  const [first, ...rest] = models.map((model) => model.columns ?? {});
  const shared = ([name, type]) => !BOOLEAN.test(type) && rest.every((columns) => name in columns);
  return Object.fromEntries(Object.entries(first ?? {}).filter(shared));
}

const sign = (op) => (op === "in" ? t("oneOf") : SIGNS[op]);
const shown = (value) => (typeof value === "number" ? number(value, Number.isInteger(value) ? 0 : 2) : value);
const sentence = ({ column, op, value }) => `${column} ${sign(op)} ${[value].flat().map(shown).join(", ")}`;

/** Return the control, which is hidden if no column can be compared. `draw` shows the filters that are set. */
export function filterField(columns) {
  const names = Object.keys(columns);
  const list = h("ul", { class: "chips", "aria-label": t("filters") });
  const column = h(
    "select",
    { id: "filter-column", "aria-label": t("filterColumn"), onchange: drawOps },
    names.map((name) => h("option", { value: name }, name)),
  );
  const op = h("select", { id: "filter-op", "aria-label": t("filterOp"), onchange: drawHint });
  const value = h("input", {
    id: "filter-value", type: "text", maxlength: "1000", autocomplete: "off", "aria-label": t("filterValue"),
  });
  const form = h(
    "form",
    { class: "filter", onsubmit: (event) => { event.preventDefault(); add(); } },
    column,
    op,
    value,
    h("button", {}, t("filterAdd")),
  );
  const box = h("fieldset", { class: "chips-field", id: "filters" }, h("legend", {}, t("filters")), list, form);
  const numeric = () => NUMERIC.test(columns[column.value] ?? "");

  function drawOps() {
    const found = numeric() ? [...Object.keys(SIGNS), "in"] : ["=", "!=", "in"];
    const before = op.value;
    fill(op, found.map((each) => h("option", { value: each, selected: each === before }, sign(each))));
    drawHint();
  }

  function drawHint() {
    value.placeholder = t(op.value === "in" ? "filterValues" : "filterValue");
    value.inputMode = numeric() ? "decimal" : "text";
  }

  function add() {
    const parts = (op.value === "in" ? value.value.split(/[,，]/) : [value.value]).map((each) => each.trim());
    const read = parts.filter(Boolean).map((each) => (numeric() ? Number(each) : each));
    const wrong = !read.length || read.some((each) => typeof each === "number" && !Number.isFinite(each));
    value.setAttribute("aria-invalid", String(wrong));
    if (wrong) {
      const text = t(numeric() ? "filterNumber" : "filterEmpty", column.value);
      toast(text);
      return announce(text);
    }
    const filter = { column: column.value, op: op.value, value: op.value === "in" ? read : read[0] };
    value.value = "";
    const others = state.filters.filter((each) => sentence(each) !== sentence(filter));
    change({ filters: [...others, filter] });
    announce(t("filterAdded", sentence(filter)));
  }

  function draw() {
    fill(
      list,
      state.filters.map((filter) => {
        const text = sentence(filter);
        return h("li", { class: "chip" }, text, iconButton("remove", t("filterRemove", text), () => {
          change({ filters: state.filters.filter((each) => each !== filter) });
          announce(t("filterRemove", text));
          if (!form.hidden) value.focus({ preventScroll: true });
        }));
      }),
    );
    list.hidden = !state.filters.length;
    form.hidden = !names.length || state.filters.length >= MOST;
    box.hidden = !names.length && !state.filters.length; // an address can name a filter that must be removable
  }

  drawOps();
  return { box, draw };
}
