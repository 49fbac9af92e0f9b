// The history: search, rows that can be moved, gaps of time, and the user whose history it is.

import { api } from "./api.js";
import { itemField } from "./combobox.js";
import { announce, button, byId, fill, h, icon, iconButton, toast } from "./dom.js";
import { addEvent, change, changeHistory, DAY, moveEvent, onChange, remember, removeEvent } from "./state.js";
import { state, titleOf, titles } from "./state.js";
import { gapOf, gapText, t } from "./texts.js";

const SHOWN = 15; // rows at first; a user can have hundreds
const LADDER = [0, 60, 300, 3600, 21600, DAY, 3 * DAY, 7 * DAY, 30 * DAY, 365 * DAY];
let whole = false;
let models = () => [];
let fail = () => {};
let field = null;
let confirm = 0; // counts loads of users, so that a late answer is ignored

/** Build the section. `chosen()` returns the models of the lists. */
export function startHistory({ chosen, failed }) {
  models = chosen;
  fail = failed;
  field = itemField({
    id: "add-item", label: "add", hint: "addHint", fail,
    choose(item) {
      addEvent(item.item);
      announce(t("chosen", titleOf(item.item)));
    },
  });
  byId("history-search").append(field.box);
  byId("user-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const id = byId("user-id").value.trim();
    if (id) loadUser(id);
  });
  byId("clear").addEventListener("click", clear);
  byId("history").addEventListener("keydown", onKey);
  byId("history").addEventListener("pointerdown", onPointer);
  onChange((names) => {
    if (names.some((name) => ["history", "gaps", "user", "models"].includes(name))) draw();
    else if (names.includes("unknown")) markUnknown();
  });
}

export function translateHistory() {
  field.translate();
  draw();
}

export const focusSearch = () => field.input.focus();

function draw() {
  if (state.history.length <= SHOWN) whole = false;
  const focused = describeFocus();
  const timed = models().some((model) => model.timed);
  const from = whole ? 0 : Math.max(0, state.history.length - SHOWN);
  const unread = state.history.length - Math.min(...models().map(longest));
  const rows = state.history.map((id, at) => (at < from ? null : row(id, at, timed, at < unread)));
  fill(
    byId("history"),
    from > 0 && h(
      "li",
      { class: "older" },
      button(t("older", from), () => { whole = true; draw(); }, { class: "link" }),
    ),
    rows,
  );
  byId("history").hidden = !state.history.length;
  byId("history-ends").hidden = state.history.length < 2;
  byId("clear").hidden = !state.history.length && !state.user;
  fill(byId("history-note"), notes());
  markUnknown();
  drawUser();
  restoreFocus(focused);
}

const longest = (model) => model.maxlen ?? Infinity;

/** Say which model reads how many events, and which rows are grey. */
function lengthNotes() {
  const count = state.history.length;
  const short = models().filter((model) => longest(model) < count).sort((one, two) => one.maxlen - two.maxlen);
  if (!short.length) return [];
  const [first, second] = short; // the first is the one whose unread events are grey
  if (models().length === 1) return [t("tooLong", first.maxlen)];
  if (!second) return [t("tooLongOne", first.name, first.maxlen)];
  if (first.maxlen === second.maxlen) return [t("tooLongBoth", first.maxlen)];
  return [t("tooLongTwo", first.name, first.maxlen, second.name, second.maxlen)];
}

function notes() {
  const timed = models().filter((model) => model.timed);
  const texts = state.history.length ? [] : [t("historyHint")];
  texts.push(...lengthNotes());
  if (state.history.length > 1 && timed.length) {
    texts.push(timed.length === models().length ? t("gapHint") : t("gapHintSome", timed[0].name));
  } else if (state.history.length > 1 && models().length) texts.push(t("order"));
  return texts.map((text) => h("p", {}, text));
}

/** Mark the rows whose item a model does not know. The rows are not drawn again, because a gap may be in edit. */
function markUnknown() {
  for (const item of byId("history").querySelectorAll(".event")) {
    const names = state.unknown.get(state.history[item.dataset.at]) ?? [];
    const mark = item.querySelector(".unknown-item");
    item.classList.toggle("unknown", names.length > 0);
    mark.hidden = !names.length;
    if (!names.length) continue;
    const all = names.length >= models().length;
    mark.textContent = all ? t("unknownItem") : t("unknownTo", names.join(", "));
  }
}

function drawUser() {
  const place = byId("user-chip");
  place.hidden = !state.user;
  if (!state.user) return;
  const text = t(state.edited ? "userEdited" : "userOf", state.user);
  fill(
    place,
    h("span", {}, text),
    iconButton("remove", t("dropUser", state.user), () => change({ user: "" }, { editing: true })),
  );
}

function row(id, at, timed, unread) {
  const title = titleOf(id);
  const count = state.history.length;
  const known = titles.get(id);
  return h(
    "li",
    { class: `event${unread ? " unread" : ""}`, "data-at": at },
    h(
      "button",
      {
        type: "button",
        class: "grip",
        title: t("grip", title, at + 1, count),
        "aria-label": t("grip", title, at + 1, count),
        "aria-keyshortcuts": "Alt+ArrowUp Alt+ArrowDown Delete",
      },
      h("span", { class: "place" }, String(at + 1)),
      icon("grip"),
    ),
    h(
      "div",
      { class: "event-text" },
      h("span", { class: "title", title }, title),
      h(
        "span",
        { class: "meta" },
        h("span", { class: "unknown-item", hidden: true }),
        title !== id && h("code", {}, id),
        known?.group && h("span", {}, known.group),
        timed && at > 0 && gapField(id, at),
      ),
    ),
    h(
      "span",
      { class: "event-buttons" },
      // The keys of the grip do the same, so these are not stops of the Tab key.
      iconButton("up", t("up", title), () => move(at, at - 1), { tabindex: "-1", disabled: at === 0 }),
      iconButton("down", t("down", title), () => move(at, at + 1), { tabindex: "-1", disabled: at === count - 1 }),
      iconButton("remove", t("remove", title), () => drop(at), { class: "icon-button remove" }),
    ),
  );
}

function gapField(id, at) {
  const label = t("gapOf", titleOf(id));
  const text = gapText(state.gaps[at]);
  const input = h(
    "input",
    {
      class: "gap",
      type: "text",
      value: text,
      size: "7",
      maxlength: "20",
      autocomplete: "off",
      "aria-label": label,
      title: label,
    },
  );
  function set(seconds) {
    const gaps = [...state.gaps];
    gaps[at] = seconds;
    changeHistory([...state.history], gaps);
  }
  input.addEventListener("change", () => {
    if (input.value === text) return;
    const seconds = gapOf(input.value);
    input.setAttribute("aria-invalid", String(seconds === null));
    if (seconds === null) {
      toast(t("gapWrong"));
      announce(t("gapWrong"));
    } else set(seconds);
  });
  input.addEventListener("keydown", (event) => {
    if (event.altKey || !["ArrowUp", "ArrowDown"].includes(event.key)) return;
    event.preventDefault();
    const now = gapOf(input.value) ?? state.gaps[at];
    const up = event.key === "ArrowUp";
    const next = up ? LADDER.find((each) => each > now) : LADDER.findLast((each) => each < now);
    if (next !== undefined) set(next);
  });
  return h("label", { class: "gap-label" }, t("gap"), " ", input);
}

function move(from, to) {
  const title = titleOf(state.history[from]);
  if (!moveEvent(from, to)) return;
  announce(t("moved", title, to + 1, state.history.length));
}

function undoable(text, work) {
  const before = { history: state.history, gaps: state.gaps, user: state.user, edited: state.edited };
  work();
  announce(text);
  toast(text, button(t("undo"), () => { change(before); toast(t("undone")); focusSearch(); }, { class: "link" }));
}

function drop(at) {
  undoable(t("removed", titleOf(state.history[at])), () => removeEvent(at));
  const rows = byId("history").querySelectorAll(".event .grip");
  if (rows.length) rows[Math.min(at - (state.history.length - rows.length), rows.length - 1)]?.focus();
  else focusSearch();
}

function clear() {
  undoable(t("cleared"), () => change({ history: [], gaps: [], user: "", edited: false }));
  focusSearch();
}

// Keys

function onKey(event) {
  const item = event.target.closest(".event");
  if (!item) return;
  const at = Number(item.dataset.at);
  const step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
  const onGrip = event.target.classList.contains("grip");
  if (step && event.altKey) {
    event.preventDefault();
    const to = at + step;
    if (to < 0 || to >= state.history.length) return;
    move(at, to);
    gripAt(to)?.focus();
  } else if (step && onGrip) {
    event.preventDefault();
    gripAt(at + step)?.focus();
  } else if (onGrip && ["Delete", "Backspace"].includes(event.key)) {
    event.preventDefault();
    drop(at);
  }
}

const gripAt = (at) => byId("history").querySelector(`[data-at="${at}"] .grip`);

// A change draws the rows again, so the focus returns to the control of the same kind in the same place.
function describeFocus() {
  const active = document.activeElement;
  const item = active?.closest?.("#history .event");
  const kind = item && ["grip", "gap", "remove"].find((name) => active.classList.contains(name));
  return kind ? [item.dataset.at, kind] : null;
}

function restoreFocus(focused) {
  if (focused) byId("history").querySelector(`[data-at="${focused[0]}"] .${focused[1]}`)?.focus();
}

// The pointer: a row follows the grip, and the others make room.

function onPointer(event) {
  const grip = event.target.closest(".grip");
  if (!grip || event.button !== 0) return;
  const item = grip.closest(".event");
  const from = Number(item.dataset.at);
  const list = byId("history");
  let moved = false;
  const follow = (next) => {
    const above = item.previousElementSibling;
    const below = item.nextElementSibling;
    const middle = (element) => element.getBoundingClientRect().top + element.offsetHeight / 2;
    if (above?.classList.contains("event") && next.clientY < middle(above)) above.before(item);
    else if (below && next.clientY > middle(below)) below.after(item);
    else return;
    moved = true;
    grip.setPointerCapture(next.pointerId); // moving an element releases it
  };
  const end = (last) => {
    grip.removeEventListener("pointermove", follow);
    grip.removeEventListener("pointerup", end);
    grip.removeEventListener("pointercancel", end);
    item.classList.remove("dragged");
    if (!moved) return;
    const first = Number(list.querySelectorAll(".event")[0].dataset.at);
    const shown = [...list.querySelectorAll(".event")];
    const offset = Math.min(first, ...shown.map((each) => Number(each.dataset.at)));
    if (last.type === "pointercancel") draw();
    else move(from, offset + shown.indexOf(item));
    gripAt(offset + shown.indexOf(item))?.focus();
  };
  item.classList.add("dragged");
  grip.setPointerCapture(event.pointerId);
  grip.addEventListener("pointermove", follow);
  grip.addEventListener("pointerup", end);
  grip.addEventListener("pointercancel", end);
}

// Users

/** Load the history of a user. `quiet`: the page was opened so, and the focus stays. */
export async function loadUser(id, { quiet = false } = {}) {
  const own = ++confirm;
  const message = byId("user-message");
  message.textContent = quiet ? "" : t("loading");
  try {
    const answer = await api.user(id);
    if (own !== confirm) return;
    const events = answer.history;
    remember(events);
    const times = events.map((event) => event.time);
    const gaps = times.map((time, at) => {
      if (at === 0) return 0;
      return time == null || times[at - 1] == null ? DAY : Math.max(0, time - times[at - 1]);
    });
    message.textContent = "";
    change({ user: String(id), history: events.map((event) => String(event.item)), gaps, edited: false });
    byId("user-id").value = "";
    announce(t("loaded", id, events.length));
  } catch (error) {
    if (own !== confirm) return;
    message.textContent = "";
    if (error.kind === "absent") message.textContent = t("noUser", id);
    else fail(error, () => loadUser(id, { quiet }));
  }
}
