// Build elements without markup in strings, so that no title of an item can become markup.

import { t } from "./texts.js";

const SVG = "http://www.w3.org/2000/svg";
const ICONS = {
  up: "M8 13V3.5M4 7l4-4 4 4",
  down: "M8 3v9.5M4 9l4 4 4-4",
  remove: "M4 4l8 8M12 4l-8 8",
  grip: "M6 4h.01M6 8h.01M6 12h.01M10 4h.01M10 8h.01M10 12h.01",
};

/** Return an element. `properties`: attributes; `on…` are listeners; false, null and undefined are omitted. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value") element.value = value;
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child != null && child !== false));
  return element;
}

export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("class", `icon icon-${name}`);
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

/** Return a bar that fills `share` (0 to 1) of its track. A style attribute would break the content policy. */
export function bar(share, kind = "") {
  const fill = h("span", { class: `bar-fill ${kind}` });
  fill.style.width = `${(100 * Math.max(0, Math.min(1, share))).toFixed(1)}%`;
  return h("span", { class: "bar", "aria-hidden": "true" }, fill);
}

export function button(label, onclick, properties = {}) {
  return h("button", { type: "button", onclick, ...properties }, label);
}

/** Return a button with a short text, and a long one for its tooltip and for screen readers. */
export function action(text, label, title, onclick, key = null) {
  return button(
    t(text),
    onclick,
    { class: "link", title: t(label, title), "aria-label": t(label, title), "data-key": key },
  );
}

/** Draw the content of an element again. The focus returns to the control of the same key, else of the same place. */
export function keepingFocus(element, draw) {
  const controls = () => [...element.querySelectorAll("button, input, select")];
  const active = document.activeElement;
  const at = controls().indexOf(active);
  const key = active?.dataset?.key;
  draw();
  if (at < 0) return;
  const now = controls();
  (now.find((each) => key && each.dataset.key === key) ?? now[Math.min(
    at,
    now.length - 1,
  )])?.focus({ preventScroll: true });
}

export function iconButton(name, label, onclick, properties = {}) {
  return h(
    "button",
    { type: "button", class: "icon-button", title: label, "aria-label": label, onclick, ...properties },
    icon(name),
  );
}

export const byId = (id) => document.getElementById(id);

/** Replace the children of an element. */
export function fill(element, ...children) {
  element.replaceChildren(...children.flat(Infinity).filter((child) => child != null && child !== false));
}

/** Return an element that must be in the open dialog to be seen and heard, because all around it is inert. */
function above(id) {
  const element = byId(id);
  const host = document.querySelector("dialog[open]") ?? document.body;
  if (element.parentElement !== host) host.append(element);
  return element;
}

/** Tell screen readers, and nobody else. Equal texts in a row are read again. */
export function announce(text) {
  const live = above("live");
  live.textContent = live.textContent === text ? `${text}\u00a0` : text;
}

let hiding = 0;

/** Show a short text at the bottom of the page for some seconds. */
export function toast(text, action) {
  const place = above("toast");
  fill(place, h("span", {}, text), action ?? null);
  place.hidden = false;
  const hide = () => {
    if (place.matches(":hover, :focus-within")) hiding = setTimeout(hide, 1000);
    else place.hidden = true;
  };
  clearTimeout(hiding);
  hiding = setTimeout(hide, 8000);
}

/** Return a function that runs `work` when `wait` ms have passed without another call. */
export function later(work, wait) {
  let timer = 0;
  const start = (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => work(...given), wait);
  };
  return Object.assign(start, { cancel: () => clearTimeout(timer) });
}
