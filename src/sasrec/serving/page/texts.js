// The language of the page, its texts, and how it writes numbers, times and gaps.

import { en } from "./texts_en.js";
import { zh } from "./texts_zh.js";

export const TABLES = { en, zh };
const KEY = "sasrec-language";
export const LANGUAGES = { en: "English", zh: "中文" };
let current = "en";

function remembered() {
  try {
    return localStorage.getItem(KEY);
  } catch {
    return null; // storage is switched off
  }
}

/** Choose the language that was chosen here before, else the first of the browser's that this page has. */
export function startLanguage() {
  const wanted = [remembered(), ...(navigator.languages ?? [navigator.language])];
  use(wanted.map((each) => (each ?? "").slice(0, 2)).find((each) => each in TABLES) ?? "en");
}

export function setLanguage(name) {
  use(name);
  try {
    localStorage.setItem(KEY, name);
  } catch {
    // The choice holds until the page is closed.
  }
}

function use(name) {
  current = name;
  document.documentElement.lang = name === "zh" ? "zh-CN" : "en";
}

export const language = () => current;
const locale = () => document.documentElement.lang;

export function t(name, ...given) {
  const text = TABLES[current][name];
  return typeof text === "function" ? text(...given) : text;
}

/** Return what the server says of a protocol in the language of the page; null for words that are not known. */
export function stored(text) {
  for (const [pattern, write] of TABLES[current].stored) {
    const match = pattern.exec(text);
    if (match) return write(...match.slice(1).map((part) => (part === undefined ? part : stored(part) ?? part)));
  }
  return null;
}

/** Fill the elements of index.html that name their text. */
export function translate(root) {
  for (const element of root.querySelectorAll("[data-text]")) element.textContent = t(element.dataset.text);
  for (const [name, attribute] of [["label", "aria-label"], ["hint", "placeholder"]]) {
    for (const element of root.querySelectorAll(`[data-${name}]`)) {
      element.setAttribute(attribute, t(element.dataset[name]));
    }
  }
}

export function number(value, digits = 0) {
  const options = { minimumFractionDigits: digits, maximumFractionDigits: digits };
  return new Intl.NumberFormat(locale(), options).format(value);
}

export function percent(share) {
  return new Intl.NumberFormat(locale(), { style: "percent", maximumFractionDigits: 0 }).format(share);
}

export function signed(value, digits) {
  return `${value < 0 ? "−" : "+"}${number(Math.abs(value), digits)}`;
}

export function moment(iso, time = true) {
  const date = new Date(iso);
  if (Number.isNaN(date.getTime())) return String(iso);
  const options = time ? { dateStyle: "medium", timeStyle: "short" } : { dateStyle: "medium", timeZone: "UTC" };
  return new Intl.DateTimeFormat(locale(), options).format(date);
}

// Longest first. The first name of each language is shown; all are read in both.
const UNITS = [
  [31557600, { en: "y", zh: "年" }, /^(y|yr|years?|年)$/],
  [604800, { en: "w", zh: "周" }, /^(w|wk|weeks?|周|星期)$/],
  [86400, { en: "d", zh: "天" }, /^(d|days?|天|日)$/],
  [3600, { en: "h", zh: "小时" }, /^(h|hr|hours?|小时|时)$/],
  [60, { en: "min", zh: "分" }, /^(m|min|minutes?|分|分钟)$/],
  [1, { en: "s", zh: "秒" }, /^(s|sec|seconds?|秒)?$/],
];

/** Write seconds as a number and a unit; weeks and years only if they come out even. */
export function gapText(seconds) {
  const fits = ([size], at) => seconds >= size && (at > 1 || seconds % size === 0);
  const [size, names] = UNITS.find(fits) ?? UNITS.at(-1);
  const options = { maximumFractionDigits: size === 1 ? 0 : 1, useGrouping: false };
  const shown = new Intl.NumberFormat("en", options).format(seconds / size);
  return `${shown} ${names[current]}`;
}

/** Read seconds from a number and a unit; null if the text is neither. */
export function gapOf(text) {
  const match = /^(\d+(?:[.,]\d+)?)\s*(\S*)$/.exec(text.trim().toLowerCase());
  const unit = match && UNITS.find(([, , names]) => names.test(match[2]));
  return unit ? Math.min(Math.round(Number(match[1].replace(",", ".")) * unit[0]), 3e9) : null;
}
