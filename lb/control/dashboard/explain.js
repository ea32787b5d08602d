// Why a target, a service or a request is or is not getting traffic: beside the page, kept up to date while it is open.

import { Problem, call, inPath } from "./api.js";
import { probeStrip, runBand } from "./charts.js";
import { keyed, make, say, show } from "./dom.js";
import { announce } from "./shell.js";
import { STATE_WORDS, capital, clock, latency, percent, rate, span } from "./words.js";

const HISTORY_EVERY = 10; // seconds between two looks at the earlier probes
const RUNS = 30; // of them that are shown

export class ExplainView {
  constructor(page) {
    this.page = page;
    this.subject = "";
    this.title = make("h2", { id: "explain-title", tabindex: "-1" });
    this.state = make("span");
    this.summary = make("p", { class: "summary" });
    this.figures = make("p", { class: "muted" });
    this.lines = make("ul", { class: "reasons" });
    this.strip = probeStrip();
    this.probes = make("ol", { class: "probe-list" });
    this.probeSection = make("section", {}, make("h3", {}, "Last probes"), this.strip.node, this.probes);
    this.band = runBand();
    this.runs = make("ol", { class: "probe-list" });
    this.runSection = make("section", {}, make("h3", {}, "Its probes over time"), this.band.node, this.runs);
    this.final = false; // whether there is nothing more to be asked
    this.asked = 0; // when the earlier ones were asked for
    this.problem = make("p", { class: "message bad", role: "alert", hidden: true });
    const button = (text, act, kind = "") => make("button", { type: "button", class: kind, onclick: act }, text);
    this.drain = button("Drain…", () => page.actions.drain(this.subject));
    this.undrain = button("Take back in…", () => page.actions.undrain(this.subject));
    this.weight = button("Weight…", () => page.actions.weight(this.subject));
    this.probe = button("Probe now", () => this.#probeNow());
    this.actions = make("div", { class: "row", role: "group", "aria-label": "Actions on this target" }, this.probe, this.drain, this.undrain, this.weight);
    this.probed = make("div", { class: "probed", role: "status" });
    this.node = make("dialog", { class: "drawer", "aria-labelledby": "explain-title", id: "explain" },
      make("div", { class: "inside" },
        make("div", { class: "row head" }, this.title, this.state,
          make("button", { type: "button", class: "quiet", onclick: () => page.close() }, "Close ✕")),
        this.problem, this.summary, this.figures, this.actions, this.probed,
        make("section", {}, make("h3", {}, "Why"), this.lines), this.probeSection, this.runSection));
    this.node.addEventListener("cancel", (event) => { event.preventDefault(); page.close(); });
    this.node.addEventListener("click", (event) => { if (event.target === this.node) page.close(); });
    document.body.append(this.node);
  }

  /** Open it for a subject, or close it with an empty one. */
  async open(subject) {
    if (subject === this.subject) return;
    this.subject = subject;
    if (!subject) {
      this.node.close();
      return;
    }
    say(this.title, subject);
    this.probed.replaceChildren();
    for (const part of [this.summary, this.figures, this.state]) say(part, "");
    this.lines.replaceChildren();
    this.lines.keyed = this.probes.keyed = undefined;
    this.probes.replaceChildren();
    show(this.problem, false);
    show(this.probeSection, false);
    show(this.runSection, false);
    show(this.actions, false);
    this.asked = 0;
    this.final = false;
    if (!this.node.open) this.node.showModal();
    this.title.focus();
    await this.refresh();
    if (this.subject === subject) announce(this.summary.textContent);
  }

  /** Ask again; called with every status while it is open. */
  async refresh() {
    const subject = this.subject;
    if (!subject || (this.final && !this.page.knows(subject))) return;
    let found;
    try {
      found = await call(`/api/v1/explain/${inPath(subject)}`);
    } catch (error) {
      if (this.subject !== subject || !(error instanceof Problem)) return; // a lost connection is told by the page
      say(this.problem, `${error.title}: ${error.detail}`);
      show(this.problem, true);
      this.#figures(null);
      if (this.summary.textContent) say(this.summary, `As it was: ${this.summary.textContent}`);
      this.final = true;
      return;
    }
    if (this.subject !== subject) return;
    show(this.problem, false);
    this.final = found.kind === "request"; // nothing more will happen to it
    say(this.title, found.subject);
    // The title says the name already.
    say(this.summary, capital(found.predicate));
    keyed(this.lines, found.lines.map((text, index) => ({ text, index })), (line) => line.index, () => make("li"), (node, line) => say(node, line.text));
    show(this.lines.parentNode, found.lines.length > 0);
    const now = this.page.now();
    show(this.probeSection, found.kind === "target");
    if (found.kind === "target") {
      this.strip.update(found.probes, now);
      keyed(this.probes, found.probes, (probe) => probe.at.toFixed(2), () => make("li"),
        (node, probe) => {
          node.className = probe.ok ? "passed" : "failed";
          say(node, `${probe.ok ? "● passed" : "✕ failed"} ${span(now - probe.at)} ago, after ${latency(probe.seconds)}: ${probe.text}`);
        });
    }
    this.#figures(found.kind === "target" ? this.page.target(subject) : null);
    if (found.kind === "target" && now - this.asked > HISTORY_EVERY) await this.#history(subject, now);
  }

  /** What is remembered of its probes, in runs of the same result, the newest first. */
  async #history(subject, now) {
    this.asked = now;
    let runs;
    try {
      runs = await call(`/api/v1/probes?limit=${RUNS}&subject=${encodeURIComponent(subject)}`);
    } catch (error) {
      return; // the page says when there is no connection
    }
    if (this.subject !== subject) return;
    runs = runs.filter((run) => run.target === subject);
    show(this.runSection, runs.length > 0);
    this.band.update(runs, now);
    this.runs.replaceChildren(...runs.reverse().map((run) => make("li", { class: run.result },
      `${{ passed: "●", failed: "✕" }[run.result] || "◐"} ${clock(run.first)} ${run.check}: ${run.told}`)));
  }

  #figures(target) {
    show(this.actions, Boolean(target));
    show(this.state, Boolean(target));
    show(this.figures, Boolean(target));
    if (!target) return;
    this.state.className = `state ${target.state}`;
    say(this.state, STATE_WORDS[target.state]);
    const facts = [
      `${rate(target.rate)} requests/s`, `${percent(target.share)} of its pool`, `${percent(target.error_rate)} errors`, `${percent(target.client_error_rate)} 4xx`,
      `p50 ${latency(target.p50)}`, `p99 ${latency(target.p99)}`, `${target.in_flight} in flight`,
      `${target.connections} connections`, `weight ${target.weight}`,
    ];
    if (target.configured_weight !== null) facts.push(`weight in the file ${target.configured_weight}`);
    if (target.tunnels) facts.push(`${target.tunnels} tunnels`);
    if (target.closes_idle_after) facts.push(`closes idle connections after ${span(target.closes_idle_after)}`);
    say(this.figures, facts.join(" · "));
    show(this.drain, !target.draining);
    show(this.undrain, target.draining);
  }

  /** A probe harms nothing: it needs no confirmation, and shows what was asked and what came back. */
  async #probeNow() {
    const subject = this.subject;
    this.probe.disabled = true;
    say(this.probe, "Probing…");
    try {
      const result = await call(`/api/v1/targets/${inPath(subject)}/probe`, { method: "POST", patience: 65_000 });
      if (this.subject !== subject) return;
      const fact = (name, text) => [make("dt", {}, name), make("dd", {}, make("code", {}, text))];
      this.probed.replaceChildren(make("div", { class: `message ${result.ok ? "good" : "bad"}` },
        make("strong", {}, `${result.ok ? "● Passed" : "✕ Failed"} after ${latency(result.seconds)}: ${result.text}`),
        make("dl", { class: "facts-list" }, fact("Asked", result.asked), fact("Got", result.got), fact("Expected", result.expected))));
    } catch (error) {
      if (this.subject !== subject) return;
      this.probed.replaceChildren(make("p", { class: "message bad" }, error instanceof Problem ? `${error.title}: ${error.detail}` : `No answer: ${error.message}`));
    } finally {
      this.probe.disabled = false;
      say(this.probe, "Probe now");
    }
    this.refresh();
  }
}
