// The catalogue: search it, look at similar items, and take items into the history.

import { api } from "./api.js";
import { action, announce, button, byId, fill, h, later, toast } from "./dom.js";
import { addEvent, remember, titleOf } from "./state.js";
import { number, t } from "./texts.js";
import { trouble } from "./trouble.js";
import { showSimilar } from "./windows.js";

const PAGE = 50;
let query = "";
let asked = null;
let served = { models: [] };

export function drawCatalogue(found) {
  served = found;
  const input = h(
    "input",
    {
      id: "catalogue-search",
      type: "search",
      value: query,
      maxlength: "200",
      placeholder: t("addHint"),
      autocomplete: "off",
    },
  );
  const soon = later(() => { query = input.value; load(0); }, 150);
  input.addEventListener("input", soon);
  fill(
    byId("view-catalogue"),
    h(
      "section",
      { class: "panel", "aria-labelledby": "catalogue-title" },
      h(
        "div",
        { class: "panel-head" },
        h("h2", { id: "catalogue-title" }, t("catalogue")),
        h("span", { id: "catalogue-count", class: "hint", role: "status" }),
      ),
      h("div", { class: "field" }, h("label", { for: input.id }, t("search")), input),
      h(
        "div",
        { class: "scroll", tabindex: "0", role: "group", "aria-label": t("catalogue") },
        h(
          "table",
          { class: "catalogue" },
          h(
            "thead",
            {},
            h(
              "tr",
              {},
              h("th", { scope: "col" }, t("title")),
              h("th", { scope: "col" }, t("id")),
              h("th", { scope: "col" }, t("group")),
              h("th", { scope: "col", class: "figure" }, t("eventsColumn")),
              h("th", { scope: "col" }, h("span", { class: "unseen" }, t("actions"))),
            ),
          ),
          h("tbody", { id: "catalogue-rows" }),
        ),
      ),
      h("p", { id: "catalogue-more" }),
    ),
  );
  load(0);
}

async function load(offset) {
  asked?.abort();
  const own = (asked = new AbortController());
  try {
    const { items, total } = await api.items(query.trim(), PAGE, offset, own.signal);
    if (own.signal.aborted) return;
    remember(items);
    const rows = byId("catalogue-rows");
    if (!offset) fill(rows);
    rows.append(...items.map(row));
    const count = offset + items.length;
    byId("catalogue-count").textContent = total ? t("shown", count, total) : t("noMatch");
    fill(byId("catalogue-more"), count < total && button(t("more"), () => load(count)));
  } catch (error) {
    if (error.name !== "AbortError") trouble(error, () => load(offset));
  }
}

function row(item) {
  const id = String(item.item);
  const title = titleOf(id);
  return h(
    "tr",
    {},
    h("th", { scope: "row" }, title),
    h("td", { class: "id" }, h("code", {}, id)),
    h("td", { class: "group" }, item.group ?? ""),
    h(
      "td",
      { class: "figure" },
      item.events != null && [
        h("span", { class: "in-table" }, number(item.events)),
        h("span", { class: "in-stack" }, t("events", item.events)),
      ],
    ),
    h(
      "td",
      { class: "row-actions" },
      action(
        "similar",
        "similarOf",
        title,
        () => showSimilar(id, served.models.length > 1 ? { model: served.models[0].name } : {}),
      ),
      " ",
      action(
        "addThis",
        "addOf",
        title,
        () => { addEvent(id); announce(t("addedNow", title)); toast(t("addedNow", title)); },
      ),
    ),
  );
}
