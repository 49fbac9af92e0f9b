// How two lists differ: which items are in one only, and which stand higher or lower.

import { h } from "./dom.js";
import { number, t } from "./texts.js";

const key = (item) => String(item.item);

/** Return the mark of an item beside the other list, or null without another list. */
export function mark(item, other) {
  if (!other?.answer) return null;
  const there = other.answer.items.find((each) => key(each) === key(item));
  if (!there) return h("span", { class: "mark only" }, t("onlyHere"));
  const up = there.rank - item.rank;
  if (!up) return h(
    "span",
    { class: "mark equal", title: t("equal") },
    h("span", { "aria-hidden": "true" }, "="),
    h("span", { class: "unseen" }, t("equal")),
  );
  const text = up > 0 ? t("higher", up, other.label) : t("lower", -up, other.label);
  return h(
    "span",
    { class: `mark ${up > 0 ? "up" : "down"}`, title: text },
    h("span", { "aria-hidden": "true" }, `${up > 0 ? "↑" : "↓"}${number(Math.abs(up))}`),
    h("span", { class: "unseen" }, text),
  );
}

/** Return one sentence on two lists. */
export function compareNote(columns) {
  const [one, two] = columns.map((column) => column.answer?.items.map(key));
  if (!one || !two) return "";
  if (one.length === two.length && one.every((item, at) => item === two[at])) return t("same");
  return t("both", one.filter((item) => two.includes(item)).length, Math.max(one.length, two.length));
}
