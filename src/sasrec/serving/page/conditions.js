// The conditions of a request: how many items, which ones, by which rules, and when.

import { itemField } from "./combobox.js";
import { announce, button, byId, fill, h, iconButton } from "./dom.js";
import { columnsOf, filterField } from "./filters.js";
import { change, fresh, onChange, state, titleOf } from "./state.js";
import { t } from "./texts.js";
import { trouble } from "./trouble.js";

const FIELDS = ["k", "seen", "rules", "perGroup", "now", "deny", "allow", "filters", "reasons"];
let rules = [];
let columns = {};
let fields = {};
let items = {};

export function startConditions(served) {
  rules = served.rules ?? [];
  columns = columnsOf(served.models);
  build();
  const wide = matchMedia("(min-width: 901px)").matches; // on a phone the list would be far below
  if (active() && wide) byId("conditions").open = true;
}

export function translateConditions() {
  if (fields.k) build();
}

onChange((names) => {
  if (fields.k && names.some((name) => FIELDS.includes(name))) update();
});

/** How many conditions differ from those at the start. */
function active() {
  const initial = fresh();
  return FIELDS.filter((name) => String(state[name]) !== String(initial[name])).length;
}

function build() {
  const whole = (name, most) => {
    const input = h(
      "input",
      {
        id: `condition-${name}`,
        type: "number",
        min: name === "k" ? "1" : "0",
        max: String(most),
        inputmode: "numeric",
        placeholder: name === "perGroup" ? t("noLimit") : null,
      },
    );
    input.addEventListener("change", () => {
      const value = Math.trunc(Number(input.value)) || 0;
      change({ [name]: Math.max(name === "k" ? 1 : 0, Math.min(most, value || (name === "k" ? 10 : 0))) });
      update();
    });
    return input;
  };
  const select = (name, options) =>
    h(
      "select",
      { id: `condition-${name}`, onchange: (event) => change({ [name]: event.target.value }) },
      options.map(([value, text]) => h("option", { value }, text)),
    );
  fields = {
    k: whole("k", 1000),
    seen: select("seen", [["", t("seenDefault")], ["hide", t("seenHide")], ["show", t("seenShow")]]),
    perGroup: whole("perGroup", 1000),
    rules: select("rules", [["", t("noRules")], ...rules.map((name) => [name, name])]),
    now: h(
      "input",
      {
        id: "condition-now",
        type: "datetime-local",
        "aria-describedby": "now-hint",
        onchange: (event) => change({ now: event.target.value }),
      },
    ),
    reasons: h(
      "input",
      {
        id: "condition-reasons",
        type: "checkbox",
        onchange: (event) => change({ reasons: event.target.checked }),
      },
    ),
  };
  items = {
    deny: chips("deny", "banned", "banAdd", "unban"),
    allow: chips("allow", "only", "onlyAdd", "unallow"),
    filters: filterField(columns),
  };
  const row = (name, ...rest) => h(
    "div",
    { class: "field" },
    h("label", { for: fields[name].id }, t(name)),
    fields[name],
    rest,
  );
  fill(
    byId("conditions-body"),
    row("k"),
    row("seen"),
    row("perGroup"),
    rules.length > 0 && row("rules"),
    row("now", h("p", { id: "now-hint", class: "hint" }, t("nowHint"))),
    h("div", { class: "check" }, fields.reasons, h("label", { for: fields.reasons.id }, t("reasons"))),
    items.deny.box,
    items.allow.box,
    h("p", { class: "hint" }, t("onlyHint")),
    items.filters.box,
    h("p", {}, button(t("reset"), reset, { class: "link", id: "reset" })),
  );
  update();
}

function chips(name, label, add, remove) {
  const list = h("ul", { class: "chips", "aria-label": t(label) });
  const field = itemField({
    label: add, hint: "addHint", fail: trouble,
    choose(item) {
      const id = String(item.item);
      if (!state[name].includes(id)) change({ [name]: [...state[name], id] });
    },
  });
  function draw() {
    fill(
      list,
      state[name].map((id) =>
        h("li", { class: "chip" }, h("span", {}, titleOf(id)), iconButton("remove", t(remove, titleOf(id)), () => {
          change({ [name]: state[name].filter((each) => each !== id) });
          announce(t(remove, titleOf(id)));
          field.input.focus({ preventScroll: true });
        })),
      ),
    );
    list.hidden = !state[name].length;
  }
  return { box: h("fieldset", { class: "chips-field" }, h("legend", {}, t(label)), list, field.box), draw };
}

function update() {
  for (const name of ["k", "seen", "rules", "now"]) fields[name].value = state[name];
  fields.perGroup.value = state.perGroup || "";
  fields.reasons.checked = state.reasons;
  items.deny.draw();
  items.allow.draw();
  items.filters.draw();
  const count = active();
  byId("active").textContent = count ? t("active", count) : "";
  byId("reset").hidden = !count;
}

/** Titles of ids can come later than the ids. */
export function titlesCame() {
  items.deny?.draw();
  items.allow?.draw();
}

function reset() {
  const initial = fresh();
  change(Object.fromEntries(FIELDS.map((name) => [name, initial[name]])));
}
