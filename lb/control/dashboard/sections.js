// The forms: one service with its pools, checks and rules, and what concerns all of them.

import { keyed, make, say, show } from "./dom.js";
import { Field, describe, fieldsOf, keysOf, labelOf } from "./fields.js";
import { many } from "./words.js";

const MANY = 40; // targets of a pool that are shown at once
/** Settings of a check that only say something to some protocols. */
const MEANT_FOR = {
  path: ["http", "https"], method: ["http", "https"], headers: ["http", "https"], expect: ["http", "https"],
  ignore_1xx: ["http", "https"], max_body: ["http", "https"], grpc_service: ["grpc"], command: ["command"],
  host: ["http", "https", "tcp", "grpc"], port: ["http", "https", "tcp", "grpc"],
};
const CHECK_FIRST = ["protocol", "path", "grpc_service", "command", "interval", "timeout", "rise", "fall", "grace"];
const CHECK_MORE = ["method", "headers", "host", "port", "ignore_1xx", "jitter", "fast_interval", "down_interval", "max_body"];

/** The forms of one service. */
export class ServiceForm {
  constructor(page, name) {
    this.page = page;
    this.path = ["services", name];
    this.fields = [];
    this.pools = make("div", { class: "stack tight" });
    this.newPool = newThing(page, {
      title: "Add a pool", inputs: [["Name", "green"], ["First target", "http://127.0.0.1:5001"]],
      add: ([pool, url]) => page.change([...this.path, "pools", pool], { targets: [url] }),
      taken: ([pool]) => page.value([...this.path, "pools", pool]) !== undefined && `there is a pool ${pool} already`,
    });
    this.active = this.#field("Service", ["active"], "Active at the first start");
    this.readiness = this.#check("readiness", "Readiness");
    this.liveness = this.#check("liveness", "Liveness");
    this.figures = { readiness: make("div", { class: "figures-box", role: "status" }), liveness: make("div", { class: "figures-box" }) };
    this.liveToggle = make("button", { type: "button", onclick: () => this.#toggleLiveness() });
    this.livenessFields = this.liveness.node;
    const sections = [
      section("Pools and targets", "One pool for each version; the active one has the traffic.", true, this.pools, this.newPool,
        make("div", { class: "fields" }, this.active.node)),
      section("Readiness", "Decides whether a target gets traffic.", true, this.readiness.node, this.figures.readiness),
      section("Liveness", "Decides whether a target should be restarted. It never takes traffic away.", false,
        make("p", {}, this.liveToggle), this.livenessFields, this.figures.liveness),
      this.#plain("balance", "Balance", "Which ready target gets the next request.", ["policy", "key"], true),
      this.#plain("retries", "Retries", "When a request is tried again, at another target.", ["attempts", "budget"]),
      this.#plain("timeouts", "Timeouts", "How long things may take.", ["connect", "response", "idle"]),
      this.#plain("rollout", "Release", "What a switch must satisfy, and how it is watched.", ["min_ready", "steps", "step_time"]),
      this.#plain("slow_start", "Slow start", "A ramp for targets that come in.", ["window"]),
      this.#plain("outlier", "Outliers", "Targets that fail their requests though their probes pass are ejected for a while.", ["enabled", "consecutive_failures", "failure_share"]),
      this.#plain("breaker", "Bounds", "Bounds that protect the targets.", ["connections", "pending", "requests"]),
    ];
    this.title = make("h3", { id: "service-title", tabindex: "-1" }, name);
    this.node = make("div", { class: "stack tight service-form" }, make("div", { class: "row" }, this.title, make("span", { class: "grow" }),
      make("button", { type: "button", class: "quiet", onclick: () => page.find(this.path) }, "Show in the YAML"),
      make("button", { type: "button", class: "quiet", onclick: () => page.remove(this.path, `service ${name}`) }, "Remove the service")), sections);
  }

  update() {
    const { page } = this;
    const service = page.value(this.path) || {};
    const pools = service.pools && typeof service.pools === "object" && !Array.isArray(service.pools) ? Object.keys(service.pools) : [];
    keyed(this.pools, pools, (pool) => pool, (pool) => {
      const form = new PoolForm(page, [...this.path, "pools", pool]);
      form.node.form = form;
      return form.node;
    }, (node) => node.form.update());
    this.active.offer(pools, pools.length > 1 ? "(not said)" : "(the only one)");
    for (const field of this.fields) field.update();
    this.readiness.update();
    const alive = service.liveness !== undefined;
    say(this.liveToggle, alive ? "Stop asking" : "Ask whether targets are alive");
    show(this.livenessFields, alive);
    if (alive) this.liveness.update();
    for (const kind of ["readiness", "liveness"]) this.#tell(kind, alive);
  }

  #field(section, keys, label) {
    const said = describe(this.page.schema, section, keys.at(-1));
    const field = new Field(this.page, [...this.path, ...keys], said, { label });
    this.fields.push(field);
    return field;
  }

  #check(key, name) {
    return new CheckForm(this.page, [...this.path, key], key === "readiness" ? "Readiness" : "Liveness", name);
  }

  #plain(key, name, help, first, open = false) {
    const sectionName = { slow_start: "SlowStart" }[key] || name;
    const type = { Release: "Rollout", Outliers: "Outlier", Bounds: "Breaker" }[name] || sectionName.replace(" ", "");
    const form = new SectionForm(this.page, [...this.path, key], type, first);
    this.fields.push(form);
    return section(name, help, open, form.node);
  }

  #toggleLiveness() {
    const path = [...this.path, "liveness"];
    const alive = this.page.value(path) !== undefined;
    this.page.change(path, alive ? null : { path: "/health/liveness", interval: "10s", fall: 3 });
  }

  #tell(kind, alive) {
    const box = this.figures[kind];
    const name = this.path[1];
    const now = this.page.figures(name)?.checks.filter((each) => each.kind === kind) || [];
    const was = this.page.runningFigures(name)?.checks.find((each) => each.kind === kind);
    show(box, kind === "readiness" || alive);
    box.classList.toggle("old", !this.page.valid);
    if (!now.length) {
      if (!this.page.valid && box.childNodes.length) return; // what it was before the error, greyed
      box.replaceChildren(make("p", { class: "muted" }, this.page.valid ? "No target is asked." : "The times are told as soon as the text is valid."));
      return;
    }
    const key = JSON.stringify([now, was, this.page.valid]);
    if (box.told === key) return;
    box.told = key;
    box.replaceChildren(...figures(kind, now, was, this.page.figures(name).probes));
  }
}

/** How fast trouble is noticed, in words and as a bar. */
function figures(kind, checks, was, probes) {
  const [slowest] = checks;
  const dead = kind === "readiness" ? "A dead target is out" : "A dead target is noticed";
  if (slowest.worst === null) {
    return [make("p", { class: "bad-text" }, kind === "readiness" ? "A dead target stays in rotation: nobody looks." : "It never gives up on a target.")];
  }
  const lines = [make("p", {}, `${dead} after `, make("b", {}, "at worst ", make("span", { class: "worst" }, seconds(slowest.worst))),
    was && was.worst !== null && was.worst !== slowest.worst && make("span", { class: "was" }, ` (running now: ${seconds(was.worst)})`),
    ", on average ", make("b", { class: "expected" }, seconds(slowest.expected)), " if it refuses connections.")];
  const bar = make("div", { class: "span-bar", "aria-hidden": "true" }, make("span"), make("i"));
  bar.firstChild.style.width = `${(100 * slowest.expected) / slowest.worst}%`;
  lines.push(bar, make("p", { class: "muted" }, `${seconds(slowest.worst)} = ${slowest.formula}: interval, then fall − 1 further failures, then the last timeout.`,
    kind === "readiness" && ` One that recovers is back after at most ${seconds(slowest.recovery)}. ${rounded(probes)} probes a second in all.`));
  if (checks.length > 1) {
    lines.push(make("p", { class: "muted" }, `That is the slowest of ${many(checks.length, "way")} that its targets are asked; it is for ${many(slowest.count, "target")}.`));
  }
  return lines;
}

function seconds(value) {
  return value >= 600 ? `${rounded(value / 60)} min` : `${rounded(value)} s`;
}

function rounded(value) {
  return String(Number(value.toPrecision(3)));
}

/** A readiness or liveness check. */
class CheckForm {
  constructor(page, path, type) {
    this.page = page;
    this.path = path;
    const has = (key) => keysOf(page.schema, type).includes(key);
    const expect = (keys) => fieldsOf(page, [...path, "expect"], "Expect", keys);
    const first = fieldsOf(page, path, type, CHECK_FIRST.filter(has));
    const [status, body] = expect(["status", "body"]);
    status.rename("Expected status");
    body.rename("Expected in the body");
    const more = [...fieldsOf(page, path, type, CHECK_MORE.filter(has)), ...expect(["headers"])];
    more.at(-1).rename("Expected headers");
    const failure = type === "Liveness" ? fieldsOf(page, [...path, "on_failure"], "OnFailure", ["webhook", "command", "timeout", "backoff", "per_hour"]) : [];
    this.fields = [...first, status, body, ...more, ...failure];
    this.node = make("div", { class: "stack tight" },
      make("div", { class: "fields" }, [...first, status, body].map((each) => each.node)),
      failure.length > 0 && make("fieldset", {}, make("legend", {}, "On failure"), make("div", { class: "fields" }, failure.map((each) => each.node))),
      further(more));
  }

  update() {
    const check = this.page.value(this.path);
    const protocol = protocolOf(check && typeof check === "object" ? check : {});
    for (const field of this.fields) {
      field.update();
      const key = field.path[this.path.length];
      const meant = MEANT_FOR[key];
      const set = this.page.value(field.path) !== undefined;
      const free = check?.protocol === undefined && ["path", "expect"].includes(key); // these make it an HTTP check
      show(field.node, set || key === "protocol" || (protocol !== "none" && (!meant || meant.includes(protocol) || free)));
    }
  }
}

function protocolOf(check) {
  if (check.protocol) return check.protocol;
  if (check.command) return "command";
  if (check.grpc_service) return "grpc";
  return ["path", "method", "headers", "expect", "ignore_1xx", "max_body"].some((key) => check[key] !== undefined) ? "http" : "tcp";
}

/** A section with plain settings alone. */
class SectionForm {
  constructor(page, path, type, first) {
    const plain = keysOf(page.schema, type).filter((key) => isPlain(page.schema, type, key));
    const shown = fieldsOf(page, path, type, first);
    const rest = fieldsOf(page, path, type, plain.filter((key) => !first.includes(key)));
    this.fields = [...shown, ...rest];
    this.node = make("div", { class: "stack tight" }, make("div", { class: "fields" }, shown.map((each) => each.node)), further(rest));
  }

  update() {
    for (const field of this.fields) field.update();
  }
}

function isPlain(schema, type, key) {
  const said = schema.$defs[type].properties[key];
  return !JSON.stringify(said).includes('"$ref"') && describe(schema, type, key).kind !== "mapping";
}

function further(fields) {
  return fields.length > 0 && make("details", { class: "further" }, make("summary", {}, many(fields.length, "further setting")),
    make("div", { class: "fields" }, fields.map((each) => each.node)));
}

function section(name, help, open, ...inside) {
  return make("details", { class: "card section", open }, make("summary", {}, make("h4", {}, name), make("span", { class: "muted" }, help)),
    make("div", { class: "body stack tight" }, inside));
}

/** A pool: its targets with their weights. */
class PoolForm {
  constructor(page, path) {
    this.page = page;
    this.path = path;
    const name = path.at(-1);
    this.rows = make("tbody");
    this.limit = MANY;
    this.title = make("h5", {}, `Pool ${name}`);
    this.count = make("span", { class: "muted" });
    this.all = make("button", { type: "button", class: "quiet", hidden: true, onclick: () => { this.limit = Infinity; this.update(); } });
    this.url = make("input", { type: "text", placeholder: "http://127.0.0.1:5001", "aria-label": `New target of ${name}`, spellcheck: "false", autocapitalize: "off" });
    const form = make("form", { class: "row", onsubmit: (event) => { event.preventDefault(); this.#add(); } }, this.url, make("button", { type: "submit" }, "Add target"));
    this.node = make("div", { class: "pool-form" }, make("div", { class: "row" }, this.title, this.count, make("span", { class: "grow" }),
      make("button", { type: "button", class: "quiet", "aria-label": `Remove pool ${name}`, onclick: () => page.remove(path, `pool ${name}`) }, "Remove")),
    make("table", {}, make("caption", { class: "hidden-text" }, `Targets of ${name}`), make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "Address"), make("th", { scope: "col" }, "Weight"), make("th", {}, make("span", { class: "hidden-text" }, "Remove")))), this.rows),
    this.all, form);
  }

  update() {
    const targets = this.page.value([...this.path, "targets"]);
    const list = Array.isArray(targets) ? targets : [];
    this.size = list.length;
    say(this.count, many(list.length, "target"));
    show(this.all, list.length > this.limit);
    say(this.all, `Show all ${list.length}`);
    keyed(this.rows, list.slice(0, this.limit).map((_, at) => at), (at) => at, (at) => this.#row(at), (node) => node.fields.forEach((field) => field.update()));
  }

  #row(at) {
    const { page } = this;
    const path = [...this.path, "targets", at];
    const pool = this.path.at(-1);
    const field = (key) => new Field(page, [...path, key], describe(page.schema, "Target", key), { label: `${labelOf(key)} of target ${at + 1} of ${pool}`, plain: true });
    const [url, weight] = [field("url"), field("weight")];
    url.required = true;
    const name = () => page.value(path)?.url || `target ${at + 1}`;
    const node = make("tr", {}, make("td", {}, url.node), make("td", {}, weight.node), make("td", { class: "num" },
      make("button", { type: "button", class: "quiet", "aria-label": `Remove target ${at + 1} of ${pool}`, title: "Remove", onclick: () => page.remove(path, name()) }, "✕")));
    node.fields = [url, weight];
    return node;
  }

  #add() {
    const url = this.url.value.trim();
    if (!url) {
      this.url.focus();
      return;
    }
    this.page.change([...this.path, "targets", this.size], url);
    this.url.value = "";
  }
}

/** Names to be filled in, and a button that adds. */
export function newThing(page, { title, inputs, add, taken = () => "" }) {
  const wrong = make("span", { class: "wrong", role: "alert" });
  const fields = inputs.map(([label, example]) => {
    const input = make("input", { type: "text", placeholder: example, spellcheck: "false", autocapitalize: "off" });
    return [input, make("label", { class: "field" }, make("span", { class: "name" }, label), input)];
  });
  const form = make("form", { class: "row end-aligned", onsubmit: (event) => {
    event.preventDefault();
    const values = fields.map(([input]) => input.value.trim());
    const empty = values.findIndex((value) => !value);
    const why = empty >= 0 ? `${inputs[empty][0]} is missing` : taken(values);
    say(wrong, why || "");
    if (why) {
      fields[Math.max(0, empty)][0].focus();
      return;
    }
    add(values);
    for (const [input] of fields) input.value = "";
    details.open = false;
  } }, fields.map(([, node]) => node), make("button", { type: "submit" }, "Add"), wrong);
  const details = make("details", { class: "further new" }, make("summary", {}, title), form);
  return details;
}

/** What concerns all services: listeners, routes, the process. */
export class CommonForm {
  constructor(page) {
    this.page = page;
    this.routes = make("tbody");
    this.listeners = make("tbody");
    this.fields = fieldsOf(page, [], "", ["workers", "lame_duck", "drain", "watch"]);
    this.fields.push(...fieldsOf(page, ["access_log"], "AccessLog", ["format"]).map((field) => {
      field.rename("Access log");
      return field;
    }));
    const columns = (names) => make("thead", {}, make("tr", {}, names.map((name) => make("th", { scope: "col" }, name)), make("th", {}, make("span", { class: "hidden-text" }, "Remove"))));
    this.title = make("h3", { id: "service-title", tabindex: "-1" }, "Listeners, routes, process");
    this.node = make("div", { class: "stack tight service-form" }, this.title,
      section("Listeners", "Addresses that accept clients.", true,
        make("table", {}, make("caption", { class: "hidden-text" }, "Listeners"), columns(["Address"]), this.listeners),
        newThing(page, { title: "Add a listener", inputs: [["Address", "0.0.0.0:8080"]], add: ([bind]) => page.change(["listeners", this.bound.length], { bind }) })),
      section("Routes", "Which requests go to which service. The most specific host wins, then the longest path.", true,
        make("table", {}, make("caption", { class: "hidden-text" }, "Routes"), columns(["Host", "Path", "Service"]), this.routes),
        newThing(page, { title: "Add a route", inputs: [["Path", "/greeting"], ["Service", "greeting"]], add: ([path, service]) => page.change(["routes", this.routed.length], { path, service }) })),
      section("Process", "What a reload or a restart of lb takes up.", true, make("div", { class: "fields" }, this.fields.map((each) => each.node))));
  }

  get bound() {
    const value = this.page.value(["listeners"]);
    return Array.isArray(value) ? value : [];
  }

  get routed() {
    const value = this.page.value(["routes"]);
    return Array.isArray(value) ? value : [];
  }

  update() {
    const list = (body, items, key, type, keys, what) => keyed(body, items.map((_, at) => at), (at) => at, (at) => this.#row(key, at, type, keys, what),
      (node) => node.fields.forEach((field) => {
        if (field.path.at(-1) === "service") field.offer(Object.keys(this.page.value(["services"]) || {}), "(missing)");
        field.update();
      }));
    list(this.listeners, this.bound, "listeners", "Listener", ["bind"], "listener");
    list(this.routes, this.routed, "routes", "Route", ["host", "path", "service"], "route");
    for (const field of this.fields) field.update();
  }

  #row(key, at, type, keys, what) {
    const { page } = this;
    const fields = keys.map((name) => {
      const said = describe(page.schema, type, name);
      const field = new Field(page, [key, at, name], name === "host" ? { ...said, examples: [], default: "any" } : said, { label: `${labelOf(name)} of ${what} ${at + 1}`, plain: true });
      field.required = name === "bind" || name === "service";
      return field;
    });
    const node = make("tr", {}, fields.map((field) => make("td", {}, field.node)), make("td", { class: "num" },
      make("button", { type: "button", class: "quiet", "aria-label": `Remove ${what} ${at + 1}`, title: "Remove", onclick: () => page.remove([key, at], `${what} ${at + 1}`) }, "✕")));
    node.fields = fields;
    return node;
  }
}

