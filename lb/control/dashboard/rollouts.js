// A rollout under way: its steps, how far the present one has come, and what the analysis says.

import { chart } from "./charts.js";
import { attribute, keyed, make, say, show } from "./dom.js";
import { latency, percent, span } from "./words.js";

export class RolloutView {
  constructor(page, service) {
    this.page = page;
    this.charts = make("div", { class: "figures two" });
    this.title = make("h3");
    this.phase = make("span", { class: "tag" });
    this.steps = make("ol", { class: "steps" });
    this.bar = make("progress", { "aria-label": "Time of this step" });
    this.time = make("span", { class: "muted" });
    this.ready = make("span", { class: "muted" });
    this.analysis = make("p", { class: "analysis" });
    this.complete = make("button", { type: "button", onclick: () => page.actions.complete(service) }, "Complete…");
    this.back = make("button", { type: "button", class: "danger", onclick: () => page.actions.rollBack(service) }, "Roll back…");
    this.node = make("section", { class: "rollout", hidden: true, "aria-label": `Rollout of ${service}` },
      make("div", { class: "row" }, this.title, this.phase, make("span", { class: "grow" }), this.complete, this.back),
      this.steps, make("div", { class: "row" }, this.bar, this.time, this.ready), this.analysis, this.charts);
  }

  update(service) {
    const rollout = service.rollout;
    show(this.node, Boolean(rollout));
    if (!rollout) return;
    const { from, to, phase, share } = rollout;
    say(this.title, `${from} → ${to}: ${share} %`);
    const words = { stepping: `step ${rollout.step} of ${rollout.steps.length}`, baking: "all traffic is there; still watched", frozen: "✕ frozen" };
    say(this.phase, rollout.held ? "◐ held: not enough data" : words[phase] || phase);
    this.phase.className = phase === "frozen" ? "tag bad" : rollout.held ? "tag warn" : "tag on";
    keyed(this.steps, rollout.steps.map((percent, index) => ({ percent, index })), (step) => step.index,
      () => make("li", {}, make("span", { class: "hidden-text" }), make("b")),
      (node, { percent, index }) => {
        const place = phase === "baking" || index < rollout.step - 1 ? "done" : index === rollout.step - 1 ? "now" : "next";
        node.className = place;
        attribute(node, "aria-current", place === "now" ? "step" : null);
        say(node.firstChild, { done: "done:", now: "now:", next: "to come:" }[place]);
        say(node.lastChild, `${{ done: "✓ ", now: "▶ ", next: "" }[place]}${percent} %`);
      });
    show(this.bar, phase !== "frozen");
    this.bar.max = Math.max(0.001, rollout.length);
    this.bar.value = Math.min(rollout.lasted, rollout.length);
    say(this.time, phase === "frozen" ? "" : `${span(rollout.lasted)} of ${span(rollout.length)}`);
    say(this.ready, Object.entries(rollout.ready).map(([pool, [ready, all]]) => `${pool}: ${ready} of ${all} ready`).join(" · "));
    const analysis = [rollout.reason, rollout.analysis];
    say(this.analysis, [...new Set(analysis.filter(Boolean))].join("; ") || "The analysis has nothing to say yet.");
    show(this.complete, phase !== "baking");
    this.#compare(service.name, from, to);
  }
  /** Both pools side by side, over the same time. */
  #compare(service, from, to) {
    const pair = `${from} ${to}`;
    if (this.pair !== pair) {
      this.pair = pair;
      const lines = (of) => [{ name: from, of: (point) => of(point.from) }, { name: to, of: (point) => of(point.to) }];
      this.errors = chart({ title: "Errors of both", lines: lines((figures) => figures?.errors ?? null), format: (value) => (value === null ? "–" : percent(value)), least: 0.01 });
      this.tails = chart({ title: "p99 of both", lines: lines((figures) => figures?.p99 ?? null), format: latency, least: 0.001 });
      this.charts.replaceChildren(this.errors.node, this.tails.node);
    }
    const points = new Map();
    for (const [side, pool] of [["from", from], ["to", to]]) {
      for (const figures of this.page.history.of(`${service}/${pool}`)) {
        points.set(figures.at, { ...points.get(figures.at), at: figures.at, [side]: figures.rate ? figures : undefined });
      }
    }
    const ordered = [...points.values()].sort((a, b) => a.at - b.at);
    for (const each of [this.errors, this.tails]) each.update(ordered, this.page.now());
  }
}
