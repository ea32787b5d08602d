// Talks to the admin API: JSON in and out, problem documents as errors, the token, and the stream of events.
// The token is kept in sessionStorage: it ends with the tab.

const TOKEN = "lb-token";
const PATIENCE = 10_000; // milliseconds that an answer may take
const SILENCE = 40_000; // milliseconds without a sign of life on a stream (the server gives one every 15 s)

/** A refusal, as the server's problem document (RFC 9457) tells it. `reasons`: [{target|where, reason}]. */
export class Problem extends Error {
  constructor(status, document) {
    super(document.detail || document.title || `HTTP ${status}`);
    this.status = status;
    this.type = document.type || "";
    this.title = document.title || `HTTP ${status}`;
    this.detail = document.detail || "";
    this.reasons = document.reasons || [];
  }
}

/** No answer at all: the connection is lost, or too slow. */
export class Unreachable extends Error {}

let askForToken = null; // set by the page: async (wrong) => token
let asking = null;
let ahead = 0; // milliseconds that the server's clock is ahead of this one

/** How the page asks for a token: an async function; its argument says whether the last one was wrong. */
export function onTokenNeeded(ask) {
  askForToken = ask;
}

/** Now, in Unix seconds by the server's clock. */
export function now() {
  return (Date.now() + ahead) / 1000;
}

/** Where `id` goes in a path: each part escaped, the slashes kept. */
export function inPath(id) {
  return id.split("/").map(encodeURIComponent).join("/");
}

/** One request. Returns the parsed JSON; throws `Problem` or `Unreachable`. Options: method, body, headers, patience. */
export async function call(path, options = {}) {
  const response = await send(path, options);
  const text = await response.text().catch(() => { throw new Unreachable("the answer broke off"); });
  return text ? JSON.parse(text) : null;
}

/** One request; returns the Response if it is a success. */
export async function send(path, { method = "GET", body, headers = {}, patience = PATIENCE, signal } = {}) {
  for (;;) {
    const used = sessionStorage.getItem(TOKEN) || "";
    const sent = { Accept: "application/json", "X-LB-Actor": "dashboard", ...headers };
    if (used) sent.Authorization = `Bearer ${used}`;
    if (body !== undefined) sent["Content-Type"] = "application/json";
    const limit = new AbortController();
    const timer = setTimeout(() => limit.abort(), patience);
    signal?.addEventListener("abort", () => limit.abort(), { once: true });
    let response;
    try {
      response = await fetch(path, {
        method, headers: sent, cache: "no-store", credentials: "omit", redirect: "error", signal: limit.signal,
        body: body === undefined ? undefined : JSON.stringify(body),
      });
    } catch (error) {
      throw new Unreachable(limit.signal.aborted ? "no answer in time" : "no connection");
    } finally {
      clearTimeout(timer);
    }
    noteClock(response.headers.get("Date"));
    if (response.ok) return response;
    const problem = await response.json().catch(() => ({}));
    if (response.status !== 401 || !askForToken) throw new Problem(response.status, problem);
    await newToken(used);
  }
}

/** Ask for a token, once however many requests need it; not at all if another request got a newer one meanwhile. */
async function newToken(used) {
  if ((sessionStorage.getItem(TOKEN) || "") !== used) return;
  asking ??= askForToken(used !== "").then((token) => sessionStorage.setItem(TOKEN, token)).finally(() => { asking = null; });
  await asking;
}

export function forgetToken() {
  sessionStorage.removeItem(TOKEN);
}

export function hasToken() {
  return Boolean(sessionStorage.getItem(TOKEN));
}

function noteClock(date) {
  const server = Date.parse(date || "");
  // The header has whole seconds: smaller differences are no difference.
  if (!Number.isNaN(server)) ahead = Math.abs(server - Date.now()) > 2000 ? server - Date.now() : 0;
}

/**
 * The events from `after` (an id) on, for as long as `signal` lets it: reconnects by itself, and goes on where it was.
 * It lets go while nobody looks at the page: a browser has but six connections to one host, for all its tabs together.
 * `onEvent(event)` gets each one; `onState(connected)` hears whether the stream stands.
 */
export async function follow({ after = 0, since = 0, onEvent, onState = () => {}, signal }) {
  let last = after;
  let pause = 500;
  while (!signal?.aborted) {
    await shown();
    const limit = new AbortController();
    const stop = () => limit.abort();
    const hide = () => { if (document.hidden) stop(); };
    signal?.addEventListener("abort", stop, { once: true });
    document.addEventListener("visibilitychange", hide);
    let timer = 0;
    try {
      const headers = { Accept: "text/event-stream" };
      if (last) headers["Last-Event-ID"] = String(last);
      const path = last || !since ? "/api/v1/events" : `/api/v1/events?since=${since}`;
      const response = await send(path, { headers, signal: limit.signal });
      onState(true);
      pause = 500;
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        clearTimeout(timer);
        timer = setTimeout(stop, SILENCE);
        const { value, done } = await reader.read();
        if (done) break;
        const blocks = (rest + value).split("\n\n");
        rest = blocks.pop();
        for (const block of blocks) {
          const data = block.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trim());
          if (!data.length) continue;
          const event = JSON.parse(data.join("\n"));
          last = event.id;
          onEvent(event);
        }
      }
    } catch (error) {
      if (!(error instanceof Unreachable || error instanceof Problem || error.name === "AbortError" || error instanceof TypeError)) {
        throw error;
      }
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", stop);
      document.removeEventListener("visibilitychange", hide);
      stop();
    }
    if (signal?.aborted) return;
    onState(false);
    if (document.hidden) continue;
    await new Promise((resolve) => setTimeout(resolve, pause * (0.75 + Math.random() / 2)));
    pause = Math.min(pause * 2, 10_000);
  }
}

/** Until somebody looks at the page. */
async function shown() {
  while (document.hidden) {
    await new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true }));
  }
}
