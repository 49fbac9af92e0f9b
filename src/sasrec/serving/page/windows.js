// What opens on demand: reasons under an item, similar items, and a text to copy.

import { api } from "./api.js";
import { action, announce, bar, button, byId, fill, h, toast } from "./dom.js";
import { addEvent, remember, titleOf } from "./state.js";
import { number, signed, t } from "./texts.js";
import { sentence } from "./trouble.js";

const EVENTS = 6; // that are shown first

/** Fill `place` with the events that speak for an item. */
export async function showWhy(place, ask) {
  if (!place.childNodes.length) fill(place, h("p", { class: "hint" }, t("loading")));
  try {
    const { events } = await ask();
    remember(events);
    drawWhy(place, [...events].sort((one, two) => Math.abs(two.effect) - Math.abs(one.effect)), EVENTS);
  } catch (error) {
    fill(place, h("p", { class: "hint" }, sentence(error)));
  }
}

function drawWhy(place, events, most) {
  if (!events.length) return fill(place, h("p", { class: "hint" }, t("noEffects")));
  const largest = Math.max(...events.map((event) => Math.abs(event.effect))) || 1;
  const rest = events.length - most;
  const gaps = events.some((event) => event.interval_effect != null);
  fill(
    place,
    h("p", { class: "hint" }, events.every((event) => event.effect <= 0) ? t("noReasons") : t("effects")),
    h(
      "ul",
      { class: gaps ? "effects gaps" : "effects" },
      events.slice(0, most).map((event) =>
        h(
          "li",
          {},
          h("span", { class: "title" }, event.title || titleOf(event.item)),
          bar(Math.abs(event.effect) / largest, event.effect < 0 ? "against" : ""),
          h("span", { class: "effect", title: event.effect < 0 ? t("against") : null }, signed(event.effect, 2)),
          gaps && h("span", { class: "effect hint", title: t("intervalsHint") }, gapEffect(event)),
        ),
      ),
    ),
    rest > 0 && button(t("moreEvents", rest), () => drawWhy(place, events, events.length), { class: "link" }),
  );
}

function gapEffect({ interval_effect: effect }) {
  return Math.abs(effect ?? 0) < 0.005 ? "" : `${t("intervals")} ${signed(effect, 2)}`;
}

function show(title, ...content) {
  const dialog = byId("dialog");
  byId("dialog-title").textContent = title;
  fill(byId("dialog-body"), content);
  if (!dialog.open) dialog.showModal();
}

/** Open the items most like an item. Each can be added, or followed. */
export async function showSimilar(id, named = {}) {
  const title = t("similarOf", titleOf(id));
  show(title, h("p", { class: "hint" }, t("loading")));
  try {
    const { items } = await api.similar({ item: id, k: 10, ...named });
    remember(items);
    show(
      title,
      h("p", { class: "hint" }, t("cosine")),
      h("ol", { class: "ranked" }, items.map((item, at) => similarRow(item, at, named))),
    );
  } catch (error) {
    show(title, h("p", { class: "note" }, sentence(error)));
  }
}

function similarRow(item, at, named) {
  const id = String(item.item);
  const title = titleOf(id);
  return h(
    "li",
    { class: "item" },
    h("span", { class: "rank" }, String(at + 1)),
    h("span", { class: "title", title }, title),
    h("span", { class: "score" }, bar(item.score), h("span", { class: "value" }, number(item.score, 3))),
    h(
      "div",
      { class: "second-line" },
      h("span", { class: "meta" }, title !== id && h("code", {}, id)),
      h(
        "span",
        { class: "item-actions" },
        action("similar", "similarOf", title, () => showSimilar(id, named)),
        action(
          "addThis",
          "addOf",
          title,
          () => { addEvent(id); announce(t("addedNow", title)); toast(t("addedNow", title)); },
        ),
      ),
    ),
  );
}

export function showText(title, text) {
  const field = h("textarea", { readonly: true, rows: "8", value: text, "aria-label": title });
  show(title, field);
  field.select();
}

byId("dialog-close").addEventListener("click", () => byId("dialog").close());
byId("dialog").addEventListener(
  "click",
  (event) => event.target === event.currentTarget && event.currentTarget.close(),
);
