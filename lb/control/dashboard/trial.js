// A request that is tried without any traffic: what `lb route test` prints, by the configuration that runs.

import { Problem, Unreachable, call } from "./api.js";
import { refusal } from "./confirm.js";
import { make, say } from "./dom.js";
import { many } from "./words.js";

const SHOWN = 12; // other routes that are listed
const METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
const PATIENCE = 30_000; // milliseconds: a step may have a slow hash to compute

export class TrialView {
  constructor() {
    const input = (id, attributes) => make("input", { id, type: "text", autocomplete: "off", spellcheck: "false", autocapitalize: "off", ...attributes });
    const field = (label, node, kind = "") => make("div", { class: `field ${kind}` }, make("label", { for: node.id }, label), node);
    this.method = make("select", { id: "trial-method" }, METHODS.map((name) => make("option", {}, name)));
    this.url = input("trial-url", { placeholder: "https://www.example.org/greeting?x=1", required: true });
    this.client = input("trial-client", { value: "127.0.0.1" });
    this.headers = make("textarea", { id: "trial-headers", rows: "3", spellcheck: "false", autocapitalize: "off", placeholder: "Cookie: beta=1" });
    this.go = make("button", { type: "submit", class: "primary" }, "Try");
    this.result = make("div", { class: "stack", role: "status" });
    const form = make("form", { class: "trial-form", onsubmit: (event) => { event.preventDefault(); this.#try(); } },
      field("Method", this.method), field("URL", this.url, "wide"), field("Client address", this.client),
      field("Header fields, one a line", this.headers, "whole"), make("div", { class: "row whole" }, this.go,
        make("span", { class: "muted" }, "Nothing is sent to a target.")));
    this.node = make("details", { class: "card trial" },
      make("summary", {}, make("h3", {}, "Try a route"), make("span", { class: "muted" }, "Which route a request takes, what a target would get, and why no other route takes it.")),
      make("div", { class: "body stack" }, form, this.result));
  }

  async #try() {
    if (this.go.disabled) return;
    this.go.disabled = true;
    const headers = this.headers.value.split("\n").map((line) => line.trim()).filter(Boolean);
    const body = { method: this.method.value, url: this.url.value.trim(), client: this.client.value.trim(), headers };
    try {
      this.result.replaceChildren(...told(await call("/api/v1/routes/test", { method: "POST", body, patience: PATIENCE })));
    } catch (error) {
      if (!(error instanceof Problem || error instanceof Unreachable)) throw error;
      this.result.replaceChildren(error instanceof Problem ? refusal(error) : make("p", { class: "message bad" }, `✕ ${error.message}`));
    } finally {
      this.go.disabled = false;
    }
  }
}

/** The result, as nodes. */
function told(trial) {
  const { answer, target } = trial;
  const facts = [["Route", trial.route === null ? "none" : `${trial.route} (routes[${trial.index}])`]];
  if (trial.steps.length) facts.push(["Steps", steps(trial)]);
  if (answer) facts.push(["Answer", `${answer.status} ${answer.reason}, by lb itself`]);
  else facts.push(["Service", `${target.service}, pool ${target.pool}`], ["Target", target.targets.join(" or ") || "none"]);
  return [
    make("dl", { class: "facts-list" }, facts.map(([name, value]) => [make("dt", { class: "muted" }, name), make("dd", {}, value)])),
    part(answer ? "What the client would get" : "What the target would get", make("pre", { tabindex: "0" }, (answer ?? target).head || "nothing")),
    ...trial.notes.map((note) => make("p", { class: "message" }, note)),
    trial.readings.length > 0 && part("Readings of the path", table(["Path", "Route"], trial.readings.map((each) => [each.path, each.route ?? "none"]))),
    trial.others.length > 0 && others(trial.others),
  ].filter(Boolean);
}

/** The steps in order; those that the request does not meet are in brackets. */
function steps({ steps: all, met }) {
  return all.map((name, place) => make("span", { class: place < met.length ? "tag on" : "tag" }, place < met.length ? name : `(${name})`)).flatMap((node) => [node, " "]);
}

function others(list) {
  const near = new Set([...list].sort((one, other) => one.reasons.length - other.reasons.length).slice(0, SHOWN));
  const shown = list.filter((each) => near.has(each));
  const more = make("p", { class: "muted", hidden: list.length <= SHOWN });
  say(more, `and ${many(list.length - shown.length, "further route")}: lb route test --json`);
  return make("details", { open: list.length <= SHOWN }, make("summary", {}, "Why not the others"),
    table(["Route", "Why not"], shown.map((each) => [`${each.route} (routes[${each.index}])`, each.reasons.join("; ")])), more);
}

function part(title, ...nodes) {
  return make("section", {}, make("h4", {}, title), nodes);
}

function table(names, rows) {
  return make("table", {}, make("thead", {}, make("tr", {}, names.map((name) => make("th", { scope: "col" }, name)))),
    make("tbody", {}, rows.map(([first, ...rest]) => make("tr", {}, make("th", { scope: "row" }, first), rest.map((cell) => make("td", {}, cell))))));
}
