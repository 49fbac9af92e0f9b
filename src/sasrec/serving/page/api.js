// Requests to the server that this page came from.

const KEY = "sasrec-token";

/** What went wrong, in words: `kind` is offline, token, scope, busy, absent, refused or broken. */
export class Failure extends Error {
  constructor(kind, message, { code = "", retryAfter = 0, requestId = "" } = {}) {
    super(message);
    Object.assign(this, { kind, code, retryAfter, requestId });
  }
}

const KINDS = { 401: "token", 403: "scope", 404: "absent", 429: "busy", 503: "busy" };

export const token = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (value) => (value ? sessionStorage.setItem(KEY, value) : sessionStorage.removeItem(KEY)),
};

async function ask(method, path, { body, signal } = {}) {
  const headers = {};
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (token.get()) headers.Authorization = `Bearer ${token.get()}`;
  let response;
  try {
    response = await fetch(
      path,
      { method, headers, signal, body: body === undefined ? undefined : JSON.stringify(body) },
    );
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure("offline", "");
  }
  let answer = null;
  try {
    answer = await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    if (response.ok) throw new Failure("broken", "");
  }
  if (response.ok) return answer;
  const kind = KINDS[response.status] ?? (response.status >= 500 ? "broken" : "refused");
  throw new Failure(kind, answer?.error?.message ?? "", {
    code: answer?.error?.code ?? "",
    retryAfter: Number(response.headers.get("Retry-After")) || 0,
    requestId: answer?.request_id ?? response.headers.get("X-Request-Id") ?? "",
  });
}

const query = (values) => new URLSearchParams(values).toString();

export const api = {
  recommend: (body, signal) => ask("POST", "v1/recommend", { body, signal }),
  similar: (body, signal) => ask("POST", "v1/similar", { body, signal }),
  explain: (body, signal) => ask("POST", "v1/explain", { body, signal }),
  user: (id, signal) => ask("GET", `v1/users/${encodeURIComponent(id)}`, { signal }),
  items: (text, limit, offset, signal) => ask(
    "GET",
    `v1/items?${query({ query: text, limit, offset })}`,
    { signal },
  ),
  /** Items of these ids. A server that cannot look ids up returns others. */
  named: (ids) => ask("GET", `v1/items?${new URLSearchParams([["limit", 100], ...ids.map((id) => ["id", id])])}`),
  models: (signal) => ask("GET", "v1/models", { signal }),
};

/** Return the command that sends a body to /v1/recommend. The token stays out of it. */
export function asCurl(body) {
  const url = new URL("v1/recommend", location.href);
  url.hash = "";
  const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;
  const lines = [`curl -sS ${quoted(url.href)}`, "-H 'Content-Type: application/json'"];
  if (token.get()) lines.push('-H "Authorization: Bearer $SASREC_TOKEN"');
  lines.push(`-d ${quoted(JSON.stringify(body))}`);
  return lines.join(" \\\n  ");
}
