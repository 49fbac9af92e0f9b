// What went wrong, as a sentence with its remedy; and the field for a token.

import { token } from "./api.js";
import { announce, button, byId, fill, h } from "./dom.js";
import { t } from "./texts.js";

const WAIT = 3; // seconds between tries while the server does not answer
let timer = 0;
let shown = null; // {failure, retry}

/** Return the sentence for a failure. */
export function sentence(failure) {
  const own = {
    offline: t("offline"),
    scope: t("scope"),
    broken: t("broken"),
    busy: t("busy", failure.retryAfter || WAIT),
  }[failure.kind];
  if (own) return own;
  return t("codes")[failure.code] || failure.message || t(failure.kind === "absent" ? "absent" : "refused");
}

/** Show a failure above the page. `retry` is run by its button, and by itself while the server does not answer. */
export function trouble(failure, retry) {
  if (!failure.kind) {
    console.error(failure); // a fault of the page itself
    return;
  }
  clearTimeout(timer);
  const before = shown;
  shown = { failure, retry };
  if (["offline", "busy"].includes(failure.kind)) timer = setTimeout(again, 1000 * (failure.retryAfter || WAIT));
  // A form that is being filled in, or a sentence that is read aloud, is not replaced by the same one.
  if (before && before.failure.kind === failure.kind && failure.kind === "offline") return;
  draw();
}

export function noTrouble() {
  if (!shown) return;
  clearTimeout(timer);
  if (shown.failure.kind === "offline") announce(t("back"));
  shown = null;
  draw();
}

export function translateTrouble() {
  if (shown) draw();
}

function again() {
  const { retry } = shown ?? {};
  retry?.();
}

window.addEventListener("online", again);

function draw() {
  const place = byId("trouble");
  if (!shown) return fill(place);
  const { failure } = shown;
  if (failure.kind === "token") return fill(place, tokenForm());
  const besides = ["scope", "broken"].includes(failure.kind) && failure.message;
  fill(
    place,
    h(
      "div",
      { class: "trouble" },
      h("p", {}, sentence(failure)),
      besides && h("p", { class: "hint", lang: "en" }, failure.message),
      failure.requestId && h("p", { class: "hint" }, h("code", {}, t("request", failure.requestId))),
      h(
        "p",
        { class: "actions" },
        button(t("retry"), again),
        failure.kind === "scope" && button(t("tokenForget"), forget),
      ),
    ),
  );
}

function forget() {
  token.set("");
  again();
}

/** Return the token of a text, which may be a whole line of the file of tokens: SCOPES TOKEN # comment. */
const tokenIn = (text) => text.replace(/(^|\s)#.*/, "").trim().split(/\s+/).at(-1);

function tokenForm() {
  const field = h(
    "input",
    { id: "token", type: "password", autocomplete: "off", required: true, "aria-describedby": "token-hint" },
  );
  const wrong = token.get() !== "";
  const form = h(
    "form",
    {
      class: "trouble",
      onsubmit: (event) => {
        event.preventDefault();
        token.set(tokenIn(field.value));
        again();
      },
    },
    h("p", {}, h("strong", {}, t("token"))),
    wrong && h("p", {}, t("tokenWrong")),
    h("p", { id: "token-hint", class: "hint" }, t("tokenHint")),
    h(
      "p",
      { class: "pair" },
      h("label", { for: "token", class: "unseen" }, t("tokenField")),
      field,
      h("button", { class: "primary" }, t("tokenUse")),
    ),
  );
  queueMicrotask(() => field.focus());
  return form;
}
