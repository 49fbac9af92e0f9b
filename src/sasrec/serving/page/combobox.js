// A field that searches items while one types, and a list under it (the combobox pattern of WAI-ARIA 1.2).

import { api } from "./api.js";
import { announce, fill, h, later } from "./dom.js";
import { remember } from "./state.js";
import { t } from "./texts.js";

const MOST = 12;
let made = 0;

/** Return a field for items. `label`, `hint`: names of texts. `choose(item)` is called with the chosen item. */
export function itemField({ label, hint, choose, fail, id = `field-${++made}` }) {
  const listId = `${id}-list`;
  const input = h("input", {
    id, type: "text", role: "combobox", autocomplete: "off", spellcheck: "false", maxlength: "200",
    enterkeyhint: "search", "aria-expanded": "false", "aria-controls": listId, "aria-autocomplete": "list",
  });
  const list = h("ul", { id: listId, role: "listbox", class: "options", hidden: true });
  const note = h("p", { class: "options-note", hidden: true });
  const labelled = h("label", { for: id });
  const box = h(
    "div",
    { class: "combobox" },
    labelled,
    h("div", { class: "combobox-field" }, input, h("div", { class: "popup" }, note, list)),
  );
  let found = [];
  let at = -1;
  let searched = ""; // the text that the list answers; the field may have changed since
  let asked = null;

  function translate() {
    labelled.textContent = t(label);
    input.placeholder = t(hint);
    list.setAttribute("aria-label", t(label));
  }

  function close() {
    asked?.abort();
    asked = null;
    found = [];
    at = -1;
    list.hidden = note.hidden = true;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  }

  function mark(place) {
    at = place;
    [...list.children].forEach((option, index) => option.setAttribute("aria-selected", String(index === at)));
    if (at < 0) return input.removeAttribute("aria-activedescendant");
    input.setAttribute("aria-activedescendant", list.children[at].id);
    list.children[at].scrollIntoView({ block: "nearest" });
  }

  function take(place) {
    const item = found[place];
    if (!item) return;
    input.value = "";
    close();
    choose(item);
  }

  function show(items, total) {
    found = items;
    fill(
      list,
      items.map((item, place) =>
        h(
          "li",
          {
            id: `${listId}-${place}`, role: "option", "aria-selected": "false",
            onpointerdown: (event) => event.preventDefault(), // the field keeps the focus
            onclick: () => take(place),
          },
          h("span", { class: "option-title" }, item.title || String(item.item)),
          h(
            "span",
            { class: "option-meta" },
            [item.group, item.title && String(item.item)].filter(Boolean).join(" · "),
          ),
          item.events != null && h("span", { class: "option-count" }, t("events", item.events)),
        ),
      ),
    );
    list.hidden = !items.length;
    note.hidden = false;
    const text = items.length ? (input.value.trim() ? t("matches", total) : t("popular")) : t("noMatch");
    note.textContent = text;
    announce(text);
    input.setAttribute("aria-expanded", String(items.length > 0));
    mark(items.length && input.value.trim() ? 0 : -1);
  }

  async function search() {
    asked?.abort();
    const own = (asked = new AbortController());
    const text = input.value.trim();
    try {
      const answer = await api.items(text, MOST, 0, own.signal);
      if (own.signal.aborted || document.activeElement !== input) return;
      remember(answer.items);
      searched = text;
      show(answer.items, answer.total);
    } catch (error) {
      if (error.name !== "AbortError") {
        close();
        fail(error);
      }
    }
  }
  const soon = later(search, 120);

  async function enter() {
    const text = input.value.trim();
    if (found.length && searched === text) return take(Math.max(at, 0));
    if (!text) return;
    soon.cancel();
    await search(); // typed faster than the list came
    if (found.length && searched === text) take(0);
  }

  input.addEventListener("input", soon);
  input.addEventListener("focus", search);
  input.addEventListener("blur", close);
  input.addEventListener("keydown", (event) => {
    if (event.isComposing) return; // Enter that ends a Chinese input chooses nothing
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: MOST, PageUp: -MOST };
    if (event.key in steps && !event.altKey) {
      event.preventDefault();
      if (!found.length) return search();
      const next = at + steps[event.key];
      const inside = Math.abs(steps[event.key]) > 1 ? Math.max(
        0,
        Math.min(found.length - 1, next),
      ) : (next + found.length) % found.length;
      mark(at < 0 && steps[event.key] < 0 ? found.length - 1 : inside);
    } else if (event.key === "Enter") {
      event.preventDefault();
      enter();
    } else if (event.key === "Escape" && !note.hidden) {
      event.preventDefault();
      close();
    }
  });
  translate();
  return { box, input, translate };
}
