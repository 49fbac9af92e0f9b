// What the page shows, and its form in the address. Views listen, and change it only through `change`.

export const DAY = 86400;
const listeners = new Set();

export function fresh() {
  return {
    view: "recommend",
    history: [], // item ids, oldest first
    gaps: [], // seconds before each event; that of the first one is 0
    user: "", // whose bans hold, and whose history it is unless `edited`
    edited: false,
    k: 10,
    models: [], // one or two names
    deny: [],
    allow: [], // empty: all items
    filters: [], // {column, op, value}, as the server reads them
    seen: "", // "", "hide" or "show"
    rules: "",
    perGroup: 0, // 0: no limit
    now: "", // as in a field for a local time; empty: the present moment
    reasons: false,
    unknown: new Map(), // id -> names of the shown models that do not know the item
  };
}

export const state = fresh();
export const titles = new Map(); // id -> {title, group, events} of items that were seen

export function remember(items) {
  for (const each of items ?? []) {
    const known = titles.get(String(each.item)) ?? {};
    titles.set(
      String(each.item),
      { ...known, ...Object.fromEntries(Object.entries(each).filter(([, value]) => value != null)) },
    );
  }
}

export const titleOf = (id) => titles.get(String(id))?.title || String(id);

export function onChange(listener) {
  listeners.add(listener);
}

/** Change the state, write it to the address and tell all views. */
export function change(values, { editing = false } = {}) {
  Object.assign(state, values);
  if (editing) state.edited = true;
  const hash = toHash();
  if (hash !== location.hash) history.replaceState(null, "", hash || location.pathname + location.search);
  for (const listener of listeners) listener(Object.keys(values));
}

/** Change the history. Times of the events that stay do not change. */
export function changeHistory(ids, gaps) {
  const first = gaps.length ? [0, ...gaps.slice(1)] : [];
  change({ history: ids, gaps: first }, { editing: true });
}

export function addEvent(id) {
  const gaps = state.gaps;
  changeHistory([...state.history, String(id)], [...gaps, gaps.length > 1 ? gaps.at(-1) : DAY]);
}

export function removeEvent(at) {
  const gaps = [...state.gaps];
  const [gap] = gaps.splice(at, 1);
  if (at > 0 && at < gaps.length) gaps[at] += gap;
  changeHistory(state.history.filter((_, place) => place !== at), gaps);
}

/** Move an event. The items change places, and the times of the places stay. */
export function moveEvent(from, to) {
  if (to < 0 || to >= state.history.length || from === to) return false;
  const ids = [...state.history];
  ids.splice(to, 0, ...ids.splice(from, 1));
  changeHistory(ids, [...state.gaps]);
  return true;
}

/** Return seconds since the first event. Models compare gaps only, so the first may be at any moment. */
export function timesOf(gaps) {
  let sum = 0;
  return gaps.map((gap, at) => (sum += at ? gap : 0));
}

const list = (values) => values.map(encodeURIComponent).join(",");
const unlist = (text) => (text ? text.split(",").map(decodeURIComponent) : []);
const plain = (text) => text;
const count = (most) => (text) => Math.max(0, Math.min(most, Math.trunc(Number(text)) || 0));
/** Return a filter as a request sends it; an address can contain anything. */
function filterOf({ column, op, value }) {
  const comparable = [value].flat().every((each) => typeof each === "string" || Number.isFinite(each));
  if (typeof column !== "string" || typeof op !== "string" || !comparable) throw new TypeError("not a filter");
  return { column, op, value };
}

// Name in the address -> [field, to text, from text].
const FIELDS = {
  view: ["view", plain, (text) => (["models", "catalogue"].includes(text) ? text : "recommend")],
  user: ["user", encodeURIComponent, decodeURIComponent],
  history: ["history", list, unlist],
  gaps: [
    "gaps",
    (gaps) => gaps.slice(1).join(","),
    (text) => [0, ...text.split(",").map((each) => Math.max(0, Number(each) || 0))],
  ],
  k: ["k", String, (text) => count(1000)(text) || 10],
  models: ["models", list, (text) => unlist(text).slice(0, 2)],
  deny: ["deny", list, unlist],
  allow: ["allow", list, unlist],
  filters: [
    "filters",
    (filters) => encodeURIComponent(JSON.stringify(filters)),
    (text) => JSON.parse(decodeURIComponent(text)).map(filterOf).slice(0, 20),
  ],
  seen: ["seen", plain, (text) => (["hide", "show"].includes(text) ? text : "")],
  rules: ["rules", encodeURIComponent, decodeURIComponent],
  per_group: ["perGroup", String, count(1000)],
  now: ["now", plain, (text) => (/^\d{4}-\d\d-\d\dT\d\d:\d\d/.test(text) ? text : "")],
  reasons: ["reasons", () => "1", (text) => text === "1"],
};

/** Return the state as a fragment of an address; what is as at the start is omitted. */
export function toHash() {
  const initial = fresh();
  const parts = [];
  for (const [name, [field, write]] of Object.entries(FIELDS)) {
    if (String(state[field]) === String(initial[field])) continue;
    if (["history", "gaps"].includes(field) && state.user && !state.edited) continue;
    if (field === "gaps" && (state.gaps.length < 2 || state.gaps.slice(1).every((gap) => gap === DAY))) continue;
    parts.push(`${name}=${write(state[field])}`);
  }
  return parts.length ? `#${parts.join("&")}` : "";
}

/** Read the state from the address. A part that cannot be read is as at the start. */
export function fromHash(hash) {
  const read = fresh();
  for (const part of hash.replace(/^#/, "").split("&")) {
    const at = part.indexOf("=");
    const field = FIELDS[part.slice(0, at)];
    if (at < 0 || !field) continue;
    try {
      read[field[0]] = field[2](part.slice(at + 1));
    } catch {
      // A broken escape or broken JSON: the field keeps its initial value.
    }
  }
  read.gaps = read.history.map((_, at) => (at ? (read.gaps[at] ?? DAY) : 0));
  read.edited = read.history.length > 0;
  return read;
}

/** Return the body of a request for a list. */
export function requestBody(model, options) {
  const body = { ...subject(options.timed), k: state.k };
  if (state.allow.length) body.allow = state.allow;
  if (state.deny.length) body.deny = state.deny;
  if (state.filters.length) body.filters = state.filters;
  if (state.seen) body.exclude_seen = state.seen === "hide";
  if (state.rules) body.rules = state.rules;
  if (state.perGroup) body.per_group = state.perGroup;
  if (state.now) body.now = new Date(state.now).getTime() / 1000;
  if (options.several && model) body.model = model;
  if (state.reasons) body.reasons = true;
  return { ...body, titles: true };
}

/** Return whose history a request is about. */
export function subject(timed) {
  if (state.user && !state.edited) return { user: state.user };
  const body = state.user ? { user: state.user } : {};
  body.history = state.history;
  if (timed) body.times = timesOf(state.gaps);
  return body;
}
