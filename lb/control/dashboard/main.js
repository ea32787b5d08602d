// The dashboard: asks for the status every two seconds, shows it, and leads from one view to another.

import { Problem, Unreachable, call, now } from "./api.js";
import { Actions } from "./actions.js";
import { CertificatesView } from "./certificates.js";
import { keyed, make, say, show } from "./dom.js";
import { ExplainView } from "./explain.js";
import { wanted } from "./filter.js";
import { History } from "./history.js";
import { ServicesView, TotalsView } from "./services.js";
import { announce, connected } from "./shell.js";
import { Events, TimelineView } from "./timeline.js";
import { TrialView } from "./trial.js";
import { clock, count, many } from "./words.js";

const EVERY = 2000; // milliseconds between two looks
const SOON = 150; // milliseconds after an event before the next look, for the others that come with it
const SELDOM = 1000; // milliseconds between two looks at least
const CALM = 80; // milliseconds after the last key before the filter is applied: the keys come first
const PATIENCE = 6000; // milliseconds that one may take

class Page {
  #status = null;
  #listeners = new Set();
  #timer = 0;
  #looking = false;
  #again = false;
  #looked = 0;
  #news = false; // whether something has happened since the last look began
  #typing = 0;
  #routed = false; // whether a view has been shown yet

  constructor() {
    this.history = new History();
    this.actions = new Actions(this);
    this.events = new Events(announce, () => this.#hurry());
    this.explainView = new ExplainView(this);
    this.totals = new TotalsView();
    this.services = new ServicesView(this);
    this.certificates = new CertificatesView();
    this.trial = new TrialView();
    this.warnings = make("div", { class: "warnings" });
    this.filter = make("input", {
      id: "filter", type: "search", placeholder: "service, pool, target, state or reason", autocomplete: "off", spellcheck: "false",
      "aria-keyshortcuts": "/", oninput: () => {
        clearTimeout(this.#typing);
        this.#typing = setTimeout(() => this.#filtered(), CALM);
      },
      onkeydown: (event) => {
        if (event.key !== "Enter" || event.isComposing) return;
        clearTimeout(this.#typing);
        this.#filtered();
        if (!this.ask.hidden) this.ask.click();
      },
    });
    this.found = make("span", { class: "muted", role: "status" });
    this.ask = make("button", { type: "button", hidden: true, onclick: () => this.explain(this.filter.value.trim()) });
    this.nothing = make("p", { class: "message", hidden: true }, "No target matches the filter.");
    this.latest = new TimelineView(this, this.events, { short: true });
    this.timeline = new TimelineView(this, this.events, { short: false });
    this.overview = make("div", { class: "overview" },
      make("div", { class: "left stack" },
        make("h2", { class: "hidden-text", tabindex: "-1" }, "Overview"), this.warnings, this.totals.node,
        make("search", { class: "row filter" }, make("label", { for: "filter" }, "Filter"), this.filter, this.found, this.ask),
        this.nothing, this.services.node, this.certificates.node, this.trial.node),
      make("aside", { class: "right", "aria-label": "Latest events" }, this.latest.node));
    this.connected = false;
    this.main = document.getElementById("main");
  }

  // --- what the parts ask for ---

  now() {
    return now();
  }

  status() {
    return this.#status;
  }

  service(name) {
    return this.#status.services.find((service) => service.name === name);
  }

  pool(id) {
    const [service, pool] = id.split("/", 2);
    return this.service(service)?.pools.find((each) => each.name === pool);
  }

  target(id) {
    return this.pool(id)?.targets.find((target) => target.id === id);
  }

  knows(subject) {
    return Boolean(this.#status && (this.service(subject) || this.target(subject)));
  }

  /** Call back with every status; returns how to stop that. */
  subscribe(listener) {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  explain(subject) {
    location.hash = `${this.view}~${encodeURI(subject)}`;
  }

  /** Close the explanation. */
  close() {
    location.hash = this.view;
  }

  // --- views ---

  get view() {
    return location.hash.slice(1).split("~")[0] === "events" ? "events" : "overview";
  }

  route() {
    const subject = decodeURI(location.hash.split("~").slice(1).join("~"));
    const view = this.view === "events" ? this.timeline.node : this.overview;
    if (this.main.firstElementChild !== view) {
      const first = !this.#routed; // a page that was just opened keeps the focus at its top, for the skip link
      this.#routed = true;
      this.main.replaceChildren(view);
      if (!first && !subject) view.querySelector("h2").focus({ preventScroll: true });
      this.timeline.update();
      this.latest.update();
      if (this.#status) this.#show();
    }
    for (const name of ["overview", "events"]) {
      const link = document.getElementById(`nav-${name}`);
      if (this.view === name) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    const known = subject && this.#status; // else when there is a status
    if (known || !subject) this.explainView.open(subject);
  }

  // --- the status ---

  async start() {
    window.addEventListener("hashchange", () => this.route());
    document.addEventListener("visibilitychange", () => { if (!document.hidden) this.look(); });
    document.addEventListener("keydown", (event) => {
      const typing = event.target.closest("input, textarea, select, dialog");
      if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && this.view === "overview") {
        event.preventDefault();
        this.filter.focus();
      }
    });
    this.main.replaceChildren(make("p", { class: "muted" }, "Loading…"));
    await this.look();
    this.route();
    this.#followEvents();
  }

  async #followEvents() {
    for (;;) {
      try {
        await this.events.start();
        return; // it was started anew elsewhere
      } catch (error) {
        await new Promise((resolve) => setTimeout(resolve, EVERY));
      }
    }
  }

  /** Ask for the status now, not older than it is; used after an order. */
  refresh() {
    this.#again = true;
    return this.look();
  }

  /** Something has happened: look soon, but not much more often than otherwise. */
  #hurry() {
    this.#news = true;
    if (document.hidden || this.#looking) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.look(), Math.max(SOON, this.#looked + SELDOM - Date.now()));
  }

  async look() {
    if (this.#looking) return;
    this.#looking = true;
    this.#looked = Date.now();
    this.#news = false;
    clearTimeout(this.#timer);
    try {
      // Up to a second old will do, so that several dashboards share one answer; but not after an order.
      const headers = this.#again ? {} : { "Cache-Control": "max-age=1" };
      this.#again = false;
      const status = await call("/api/v1/status", { headers, patience: PATIENCE });
      const restarted = this.#status && status.started_at !== this.#status.started_at;
      const first = !this.#status;
      this.#status = status;
      this.history.take(status, now());
      this.#connected(true);
      if (restarted) this.#followEvents();
      if (first) this.route();
      this.#show();
      this.explainView.refresh();
      for (const listener of this.#listeners) listener();
    } catch (error) {
      if (!(error instanceof Problem || error instanceof Unreachable)) throw error;
      this.#connected(false, error instanceof Problem ? `${error.status} ${error.title}` : error.message);
    } finally {
      this.#looking = false;
      if (this.#again) this.look();
      else if (!document.hidden) this.#timer = setTimeout(() => this.look(), this.#news ? SELDOM : EVERY);
    }
  }

  #connected(yes, why = "") {
    connected(yes, why);
    if (this.connected === yes) return;
    this.connected = yes;
    this.latest.update();
    this.timeline.update();
  }

  #show() {
    const status = this.#status;
    say(document.getElementById("about"), `lb ${status.version} · ${status.config.file.split("/").pop()}`);
    const sick = status.services.flatMap((service) => service.pools.filter((pool) => pool.share > 0))
      .reduce((sum, pool) => sum + pool.requested - pool.healthy, 0);
    document.title = sick ? `✕ ${sick} not ready · lb` : "lb";
    if (this.main.firstElementChild !== this.overview) return;
    this.#warn();
    this.totals.update(status, now());
    this.certificates.update(status);
    this.#filtered();
  }

  #filtered() {
    if (!this.#status) return;
    const text = this.filter.value.trim();
    const [found, all] = this.services.update(this.#status.services, wanted(text));
    say(this.found, text ? `${count(found)} of ${many(all, "target")}` : "");
    show(this.ask, !found && /^[\w.:-]{8,64}$/.test(text) && /\d/.test(text)); // it may be the id of a request
    show(this.nothing, Boolean(text) && !found);
    say(this.ask, `Explain request ${text}`);
  }

  #warn() {
    const { config, certificates, state_trouble: trouble, access_log_trouble: log, empty_seats: seats, workers_leaving: leaving, ready } = this.#status;
    const missing = certificates.filter((each) => each.waiting_since);
    const warnings = [
      !ready && ["bad", "✕ lb is not ready", "No service has a ready target, or lb is draining: /readyz answers 503."],
      config.last_reload_partial && ["bad", "✕ Certificates could not be taken", `${config.last_error}. Everything else is in force: lb certificates`],
      !config.last_reload_ok && !config.last_reload_partial && ["bad", "✕ The last reload was refused", `What was loaded at ${clock(config.loaded_at)} still runs. ${config.last_error}`],
      config.unconfirmed.length > 0 && ["bad", "✕ The configuration is not in force in every worker", config.unconfirmed.join("; ")],
      trouble && ["bad", "✕ State cannot be written", trouble],
      log && ["bad", "✕ The access log cannot be written", log],
      certificates.length > 0 && [missing.length ? "bad" : "warn", `${missing.length ? "✕" : "▲"} ${many(certificates.length, "certificate")} not issued`,
        certificates.map((each) => `${each.name}: ${each.failure || `waiting for ${each.authority}`}`).join("; ")],
      seats > 0 && ["bad", `✕ ${many(seats, "worker")} given up`, "They died again and again; a reload tries them once more."],
      config.needs_restart.length > 0 && ["warn", "▲ Parts of the file need a restart or an upgrade", config.needs_restart.join("; ")],
      leaving.length > 0 && ["", `▽ ${many(leaving.length, "replaced worker")} still at work`, "They end what is under way, then leave."],
    ].filter(Boolean);
    keyed(this.warnings, warnings, ([, title]) => title, ([kind, title]) => make("div", { class: `message ${kind}` }, make("strong", {}, title), make("span")),
      (node, [, , text]) => say(node.lastChild, text));
  }
}

new Page().start();
