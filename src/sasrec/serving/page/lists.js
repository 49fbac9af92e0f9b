// The lists: one model, two side by side, or a list that was kept; with reasons, similar items and bans.

import { api, asCurl } from "./api.js";
import { compareNote, mark } from "./differences.js";
import { action, announce, bar, button, byId, fill, h, keepingFocus, later, toast } from "./dom.js";
import { addEvent, change, onChange, remember, requestBody, state, subject, titleOf, titles } from "./state.js";
import { number, t } from "./texts.js";
import { noTrouble, sentence, trouble } from "./trouble.js";
import { showSimilar, showText, showWhy } from "./windows.js";

let served = { models: [], fallback: null };
let columns = []; // {name, model, answer, failure, ms, kept}
let kept = null;
let running = null;
const open = new Set(); // "column/item" whose reasons are open

const LEARNED = ["model", "blend"]; // sources of scores without a zero; the scores of the others are counts
const GLOBAL = ["token", "offline", "busy", "scope", "broken"]; // not the fault of this one request

/** Return the models of the lists. */
export function chosen() {
  const names = state.models.length ? state.models : served.models.slice(0, 2).map((model) => model.name);
  const found = names.map((name) => served.models.find((model) => model.name === name)).filter(Boolean);
  return found.length ? found : served.models.slice(0, 1);
}

export function startLists(found) {
  served = found;
  drawChoice();
  refresh();
}

const DRAWN = [
  "history", "gaps", "user", "k", "models", "deny", "allow", "filters", "seen", "rules", "perGroup", "now",
  "reasons",
];
const soon = later(() => refresh(), 150);
onChange((names) => {
  if (names.includes("models")) drawChoice();
  if (!names.some((name) => DRAWN.includes(name))) return;
  byId("lists").setAttribute("aria-busy", "true"); // from the change on, not only from the request
  soon();
});

export function translateLists() {
  drawChoice();
  draw();
}

/** Whether there is something to ask: a history, a user, or a fallback that answers without one. */
const askable = () => !cold() || Boolean(served.fallback);

const cold = () => !state.history.length && !state.user;

const bodyFor = (model) => requestBody(model.name, { timed: model.timed, several: served.models.length > 1 });

export async function refresh() {
  if (!served.models.length) return;
  running?.abort();
  soon.cancel();
  if (!askable()) {
    byId("lists").setAttribute("aria-busy", "false");
    columns = [];
    return draw();
  }
  const own = (running = new AbortController());
  byId("lists").setAttribute("aria-busy", "true");
  const slow = setTimeout(() => byId("lists").classList.add("slow"), 250);
  const got = await Promise.all(chosen().map((model) => ask(model, own.signal)));
  clearTimeout(slow);
  if (own.signal.aborted) return;
  byId("lists").classList.remove("slow");
  byId("lists").setAttribute("aria-busy", "false");
  const failure = got.map((column) => column.failure).find((each) => each && GLOBAL.includes(each.kind));
  if (failure) return trouble(failure, refresh); // the old lists stay
  noTrouble();
  columns = got;
  change({ unknown: unknownItems(got) });
  draw();
  const [first] = columns;
  const [best] = first.answer?.items ?? [];
  if (best) announce(`${t("items", first.answer.items.length)}. ${t("first", titleOf(best.item))}`);
  else announce(first.failure ? sentence(first.failure) : t("emptyList"));
}

/** Return id -> names of the models that do not know the item. */
function unknownItems(found) {
  const names = new Map();
  for (const { name, answer, failure } of found) {
    const ids = failure?.code === "nothing_known" ? state.history : (answer?.unknown ?? []);
    for (const id of new Set(ids.map(String))) names.set(id, [...(names.get(id) ?? []), name]);
  }
  return names;
}

async function ask(model, signal) {
  const column = { name: model.name, model, answer: null, failure: null, ms: 0 };
  const start = performance.now();
  try {
    column.answer = await api.recommend(bodyFor(model), signal);
    column.ms = performance.now() - start;
    remember(column.answer.items);
    column.answer.items.forEach((item) => remember(item.reasons));
  } catch (error) {
    if (error.name !== "AbortError" && !error.kind) throw error;
    column.failure = error;
  }
  return column;
}

/** Return what is shown: a kept list takes the second place. */
function shown() {
  const own = columns.map((column) => ({ ...column, label: column.name }));
  if (cold()) return own.slice(0, 1); // the list of the fallback, as an example
  return kept && own.length ? [own[0], { ...kept, label: t("pinned"), kept: true }] : own;
}

function draw() {
  const place = byId("lists");
  const all = shown();
  byId("list-actions").hidden = !all.length;
  fill(byId("compare-note"), compareNote(all));
  place.classList.toggle("two", all.length > 1);
  hideSecond();
  keepingFocus(byId("list-actions"), () => drawActions(all));
  if (!served.models.length) return fill(place, h("p", { class: "hint" }, t("loading")));
  if (!all.length) return fill(place, askable() ? h("p", { class: "hint" }, t("loading")) : welcome());
  keepingFocus(place, () =>
    fill(
      place,
      cold() && h("div", { class: "cold" }, welcome(), h("p", {}, t("cold"))),
      all.map((column, at) => drawColumn(column, all[1 - at], at)),
    ),
  );
}

function drawActions(all) {
  const single = all.length && all[0].answer;
  fill(
    byId("list-actions"),
    !kept && single && button(
      t("pin"),
      () => { kept = columns[0]; draw(); },
      { class: "link", title: t("pinHint") },
    ),
    kept && button(t("unpin"), () => { kept = null; draw(); }, { class: "link" }),
    button(t("curl"), () => copy(asCurl(bodyFor(chosen()[0]))), { class: "link" }),
    button(t("link"), () => copy(location.href), { class: "link" }),
  );
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    toast(t("copied"));
    announce(t("copied"));
  } catch {
    // Not allowed, or the page came without TLS from another machine.
    showText(t("copyYourself"), text);
  }
}

function welcome() {
  return h(
    "div",
    { class: "welcome" },
    h("h3", {}, t("startTitle")),
    h("p", {}, t("start")),
    h("p", {}, button(t("example"), example, { class: "primary" })),
    h("p", { class: "hint" }, t("orUser")),
  );
}

async function example() {
  try {
    const { items } = await api.items("", 3, 0);
    remember(items);
    items.reverse().forEach((item) => addEvent(item.item));
  } catch (error) {
    trouble(error, example);
  }
}

function drawColumn(column, other, at) {
  const { answer, failure, model } = column;
  const head = h(
    "div",
    { class: "column-head" },
    h("h3", {}, column.label),
    h("span", { class: "meta" }, h("code", {}, answer?.model?.hash ?? model.hash ?? ""), model.kind),
    other && jump(other, at),
  );
  const part = (...content) => h(
    "section",
    {
      class: `column${column.kept ? " kept" : ""}`,
      tabindex: "-1",
      "aria-label": t("listOf", column.label),
      "data-model": column.name,
    },
    head,
    content,
  );
  if (failure) return part(h("p", { class: "note" }, sentence(failure)));
  const range = rangeOf(answer);
  const facts = [
    t("items", answer.items.length),
    t("reads", Math.min(answer.known, readable(answer, model)), answer.known),
    t("ms", column.ms),
    answer.items.length > 1 && t(range.counts ? "barsCounts" : "barsScores"),
  ].filter(Boolean).join(" · ");
  const notes = notesOf(answer, model);
  return part(
    h("p", { class: "meta", title: t("request", answer.request_id ?? "") }, facts),
    notes.map((text) => h("p", { class: "note" }, text)),
    h(
      "ol",
      { class: "ranked", "aria-label": t("listOf", column.label) },
      answer.items.map((item) => drawItem(item, column, other, at, range)),
    ),
  );
}

/** Return how many events the scorer of an answer reads at most. Baselines and blends count all of them. */
const readable = (answer, model) => (answer.source === "model" ? (model.maxlen ?? Infinity) : Infinity);

/** Return where the bars of a list start and end. Counts start at 0: a bar twice as long is twice the count. */
function rangeOf(answer) {
  const scores = answer.items.map((item) => item.score);
  const counts = !LEARNED.includes(answer.source) && scores.every((score) => score >= 0);
  return {
    counts,
    low: counts ? 0 : Math.min(...scores),
    high: Math.max(...scores),
    digits: scores.every(Number.isInteger) ? 0 : 3,
  };
}

function share(score, { counts, low, high }) {
  if (high <= low) return counts ? 0 : 1;
  const part = (score - low) / (high - low);
  return counts ? part : 0.06 + 0.94 * part; // the lowest of the list has a bar, too
}

/** Return a link to the other list, which is far below where lists stand one under the other. */
function jump(other, at) {
  const label = t("jump", other.label);
  const go = () => {
    const column = byId("lists").querySelectorAll(".column")[1 - at];
    column.focus({ preventScroll: true });
    column.scrollIntoView();
  };
  const properties = { class: "link jump", title: label, "aria-label": label };
  return button(`${at ? "↑" : "↓"} ${other.label}`, go, properties);
}

/** Return what is special about an answer, in the language of the page; else what the server says of it. */
function notesOf(answer, model) {
  const count = answer.items.length;
  const own = [
    answer.source !== (model.source ?? "model") && state.history.length > 0 && t("fallback", answer.source),
    answer.unknown?.length > 0 && t("unknown", answer.unknown.join(", ")),
    count === 0 && t("emptyList"),
    count > 0 && count < state.k && t("short", count, state.k),
  ].filter(Boolean);
  return own.length || !state.history.length ? own : (answer.notes ?? []);
}

function drawItem(item, column, other, at, range) {
  const id = String(item.item);
  const title = titleOf(id);
  const known = titles.get(id);
  const key = `${at}/${id}`;
  const explained = LEARNED.includes(column.answer.source) && !column.kept;
  const [whyButton, why] = explained ? reasonsOf(id, title, column.model, key) : [];
  return h(
    "li",
    {
      class: "item",
      "data-item": id,
      onpointerenter: (event) => light(id, event.pointerType === "mouse"),
      onpointerleave: () => light(id, false),
    },
    h("span", { class: "rank" }, h("span", { class: "unseen" }, `${t("rank")} `), String(item.rank)),
    h("span", { class: "title", title }, title),
    h(
      "span",
      { class: "score" },
      bar(share(item.score, range)),
      h("span", { class: "unseen" }, `${t("score")} `),
      h("span", { class: "value" }, number(item.score, range.digits)),
    ),
    h(
      "div",
      { class: "second-line" },
      h(
        "span",
        { class: "meta" },
        mark(item, other),
        title !== id && h("code", {}, id),
        known?.group && h("span", {}, known.group),
      ),
      h(
        "span",
        { class: "item-actions" },
        whyButton,
        action("similar", "similarOf", title, () => showSimilar(id, named(column.model)), `${key}/similar`),
        action("addThis", "addOf", title, () => add(id, title), `${key}/add`),
        action("ban", "banOf", title, () => ban(id, title), `${key}/ban`),
      ),
    ),
    item.reasons?.length > 0 && h("p", { class: "because" }, because(item.reasons)),
    why,
  );
}

const because = (reasons) =>
  `${t("because")} ${reasons.map((each) => each.title || titleOf(each.item)).join(" · ")}`;

/** Return a button, and the place under the item where it shows the reasons. They stay open when lists change. */
function reasonsOf(id, title, model, key) {
  const place = h("div", { class: "why" });
  const whyButton = action("why", "whyOf", title, toggle, `${key}/why`);
  function draw() {
    place.hidden = !open.has(key);
    whyButton.setAttribute("aria-expanded", String(open.has(key)));
    if (!place.hidden) showWhy(place, () => api.explain({ ...subject(model.timed), item: id, ...named(model) }));
  }
  function toggle() {
    if (!open.delete(key)) open.add(key);
    draw();
  }
  draw();
  return [whyButton, place];
}

function add(id, title) {
  addEvent(id);
  announce(t("addedNow", title));
}

const named = (model) => (served.models.length > 1 ? { model: model.name } : {});

function ban(id, title) {
  const before = state.deny;
  change({ deny: [...before, id] });
  announce(t("bannedNow", title));
  toast(t("bannedNow", title), button(t("undo"), () => change({ deny: before }), { class: "link" }));
}

function light(id, on) {
  const rows = byId("lists").querySelectorAll(`[data-item="${CSS.escape(id)}"]`);
  rows.forEach((row) => row.classList.toggle("lit", on));
}

/** Choices of the one or two models. With one model there is nothing to choose. */
function drawChoice() {
  const place = byId("model-choice");
  place.hidden = served.models.length < 2;
  if (place.hidden) return;
  const [first, second] = chosen();
  const options = (chosen, rest) =>
    rest.map(({ name }) => h("option", { value: name, selected: name === chosen }, name));
  const one = h("select", { id: "model-one" }, options(first?.name, served.models));
  const two = h(
    "select",
    { id: "model-two" },
    h("option", { value: "", selected: !second }, t("nothing")),
    options(second?.name, served.models.filter((model) => model !== first)),
  );
  const pick = () => change({ models: [...new Set([one.value, two.value])].filter(Boolean) });
  one.addEventListener("change", pick);
  two.addEventListener("change", pick);
  keepingFocus(
    place,
    () => fill(place, h("label", {}, t("model"), " ", one), h("label", {}, t("compareWith"), " ", two)),
  );
  hideSecond();
}

/** Without a history one list is shown, so there is nothing to compare with. */
function hideSecond() {
  const label = byId("model-two")?.parentElement;
  if (label) label.hidden = cold();
}
