// Facts of the models: what each is, how it was measured, and how simple baselines do on the same targets.

import { bar, byId, fill, h } from "./dom.js";
import { moment, number, percent, stored, t } from "./texts.js";

const COLUMNS = ["ndcg@10", "hr@10", "mrr@10"];

export function drawModels({ models, fallback }) {
  fill(byId("view-models"), h("div", { class: "cards" }, models.map((model) => card(model, fallback))));
}

function card(model, fallback) {
  return h(
    "section",
    { class: "panel model", "aria-label": model.name },
    h("div", { class: "panel-head" }, h("h2", {}, model.name), h("span", { class: "meta" }, model.kind)),
    h("dl", { class: "facts" }, facts(model, fallback).map(fact)),
    h("h3", {}, t("quality")),
    quality(model),
    protocol(model),
  );
}

function facts(model, fallback) {
  const { data } = model;
  const all = [
    [t("weights"), h("code", {}, model.hash)],
    [t("loadedAt"), model.loaded && moment(model.loaded)],
    [t("parameters"), model.parameters != null && number(model.parameters)],
    [t("maxlen"), model.maxlen && t("lastEvents", model.maxlen)],
    [t("timed"), t(model.timed ? "timedYes" : "timedNo")],
    [t("repeats"), t(model.repeats ? "repeatsYes" : "repeatsNo")],
    [t("share"), model.share != null && percent(model.share)],
    [t("fallbackFact"), fallback || t("none")],
    [t("data"), data?.name],
    [t("eventsFact"), data?.events != null && number(data.events)],
    [t("itemsFact"), number(model.items)],
    [t("usersFact"), model.users ? number(model.users) : null],
    [t("period"), data?.first_event && `${day(data.first_event)} – ${day(data.last_event)}`],
  ];
  return all.filter(([, value]) => value);
}

const fact = ([name, value]) =>
  h("div", { class: name === t("period") ? "long" : "" }, h("dt", {}, name), h("dd", {}, value));

/** Times of the data are in UTC, and say so or not. */
const day = (value) => {
  const zoned = /Z$|[+-]\d\d:?\d\d$/.test(value);
  return moment(zoned ? value : `${String(value).replace(" ", "T")}Z`, false);
};

/** Return {value, low, high} of a metric, which may be a number with its interval beside it. */
function read(metrics, intervals, name) {
  const found = metrics?.[name];
  if (found == null) return null;
  if (typeof found === "object") return { value: found.value ?? found.mean, low: found.low, high: found.high };
  const interval = intervals?.[name];
  return { value: found, low: interval?.[0] ?? interval?.low, high: interval?.[1] ?? interval?.high };
}

function quality(model) {
  const names = COLUMNS.filter((name) => model.metrics?.[name] != null);
  if (!names.length) return h("p", { class: "hint" }, t("noMetrics"));
  const intervals = model.intervals ?? model.metrics.intervals;
  const rows = [
    { name: model.name, own: true, values: names.map((name) => read(model.metrics, intervals, name)) },
    ...Object.entries(model.baselines ?? {}).map(([name, metrics]) => ({
      name, own: false, values: names.map((each) => read(metrics, metrics.intervals, each)),
    })),
  ];
  const ordered = rows.sort((one, two) => (two.values[0]?.value ?? 0) - (one.values[0]?.value ?? 0));
  const most = Math.max(...rows.flatMap(({ values: [first] }) => [first?.value ?? 0, first?.high ?? 0]));
  return [
    verdict(ordered, names[0]),
    h(
      "div",
      { class: "scroll", tabindex: "0", role: "group", "aria-label": t("quality") },
      h(
        "table",
        { class: "quality" },
        h(
          "thead",
          {},
          h(
            "tr",
            {},
            h("th", { scope: "col" }, t("scorer")),
            names.map((name) => h("th", { scope: "col", class: "figure" }, name.toUpperCase())),
            h("td", {}),
          ),
        ),
        h("tbody", {}, ordered.map((row) => line(row, most))),
      ),
    ),
    h(
      "p",
      { class: "hint" },
      t("qualityHint", model.metrics.split),
      ` ${t("qualityBars", names[0].toUpperCase())}`,
      rows.some(({ values }) => values[0]?.low != null) ? ` ${t("intervalHint")}` : "",
    ),
  ];
}

function line({ name, own, values }, most) {
  const [first] = values;
  return h(
    "tr",
    { class: own ? "own" : "" },
    h("th", { scope: "row" }, name, !own && h("span", { class: "hint" }, ` ${t("baseline")}`)),
    values.map((each) => h(
      "td",
      {
        class: "figure",
        title: each?.low != null ? t("interval", number(each.low, 4), number(each.high, 4)) : null,
      },
      each ? number(each.value, 4) : "",
    )),
    h("td", { class: "chart" }, first && withInterval(bar(first.value / most, own ? "" : "other"), first, most)),
  );
}

function withInterval(track, { low, high }, most) {
  if (low == null || high == null) return track;
  const whisker = h("span", { class: "whisker" });
  whisker.style.left = `${(100 * low) / most}%`;
  whisker.style.width = `${(100 * (high - low)) / most}%`;
  track.append(whisker);
  return track;
}

function verdict(rows, metric) {
  const own = rows.find((row) => row.own);
  const best = rows.find((row) => !row.own);
  if (!best || metric !== "ndcg@10" || !own.values[0]) return null;
  const [ours, theirs] = [own.values[0].value, best.values[0].value];
  if (ours <= theirs) return h("p", { class: "note" }, t("beaten", best.name));
  return theirs > 0 && h("p", {}, t("leads", best.name, percent((ours - theirs) / theirs)));
}

function protocol({ protocol: card }) {
  if (!card) return null;
  const rows = [
    [t("split"), card.split],
    [t("candidates"), card.full],
    [t("seenRule"), card.seen],
  ].filter(([, value]) => value);
  const words = (text) => stored(text) ?? h("span", { lang: "en" }, text);
  return [
    h("h3", {}, t("protocol")),
    h("dl", { class: "facts wide" }, rows.map(([name, value]) => fact([name, words(value)]))),
  ];
}
