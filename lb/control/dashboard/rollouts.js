// A rollout under way: its steps, how far the present one has come, and what the analysis says.

import { attribute, keyed, make, say, show } from "./dom.js";
import { count, span } from "./words.js";

export class RolloutView {
  constructor(page, service) {
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
      this.steps, make("div", { class: "row" }, this.bar, this.time, this.ready), this.analysis);
  }

  update(service) {
    const rollout = service.rollout;
    show(this.node, Boolean(rollout));
    if (!rollout) return;
    const { from, to, phase, share } = rollout;
    say(this.title, `${from} → ${to}: ${share} %`);
    const words = { stepping: `step ${rollout.step} of ${rollout.steps.length}`, baking: "all traffic is there; still watched", frozen: "frozen" };
    say(this.phase, rollout.held ? "held: not enough data" : words[phase] || phase);
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
    const analysis = [rollout.reason, rollout.analysis, rollout.needed ? `${count(rollout.needed)} more requests are needed to tell` : ""];
    say(this.analysis, [...new Set(analysis.filter(Boolean))].join("; ") || "The analysis has nothing to say yet.");
    show(this.complete, phase !== "baking");
  }
}
