// One card for each service: its figures, its rollout, its pools. A card is filled when it comes near the screen, and
// kept up to date while it is there: a thousand services cost no more than a dozen.

import { chart } from "./charts.js";
import { attribute, keyed, make, say, show } from "./dom.js";
import { PoolView } from "./pools.js";
import { RolloutView } from "./rollouts.js";
import { splitBar } from "./split.js";
import { age, count, latency, percent, rate, span } from "./words.js";

const FIRST = 12; // cards that are filled at once

/** All cards. `page` gives them the history, the time, and what their buttons do. */
export class ServicesView {
  constructor(page) {
    this.page = page;
    this.node = make("div", { class: "stack services live" });
    this.cards = new Map();
    this.seen = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        const card = this.cards.get(entry.target);
        if (!card) continue;
        card.visible = entry.isIntersecting;
        if (card.visible) card.refresh();
      }
    }, { rootMargin: "300px" });
  }

  /** Show these services, and of their targets those that `filter` wants (null: all). Returns [wanted, all] targets. */
  update(services, filter) {
    let found = 0;
    let all = 0;
    const shown = [];
    for (const service of services) {
      const targets = service.pools.flatMap((pool) => pool.targets);
      const here = filter ? targets.filter(filter).length : targets.length;
      all += targets.length;
      found += here;
      if (here || !filter) shown.push(service);
    }
    const few = all <= 60;
    keyed(this.node, shown, (service) => service.name, (service) => {
      const card = new ServiceCard(this.page, service, few, this.cards.size < FIRST);
      this.cards.set(card.node, card);
      this.seen.observe(card.node);
      return card.node;
    }, (node, service) => this.cards.get(node).update(service, filter));
    for (const [node] of this.cards) {
      if (!node.isConnected) {
        this.seen.unobserve(node);
        this.cards.delete(node);
      }
    }
    return [found, all];
  }
}

class ServiceCard {
  constructor(page, service, few, visible) {
    this.page = page;
    this.visible = visible;
    this.few = few;
    this.title = make("h2", { id: `service-${service.name}`, tabindex: "-1" }, service.name);
    this.node = make("section", { class: "card service", "aria-labelledby": this.title.id }, make("header", {}, this.title));
  }

  #fill() {
    const { page, service: { name } } = this;
    this.served = make("span", { class: "tag" });
    this.since = make("span", { class: "muted" });
    this.detection = make("span", { class: "muted", title: "How long a target that dies can stay in rotation, from the settings of its check" });
    this.last = make("span", { class: "muted last-rollout" });
    this.switchButton = make("button", { type: "button", onclick: () => page.actions.switchService(name) }, "Switch…");
    this.backButton = make("button", { type: "button", onclick: () => page.actions.rollBack(name) }, "Roll back…");
    for (const button of [this.switchButton, this.backButton]) attribute(button, "aria-describedby", this.title.id);
    this.split = splitBar();
    this.charts = [
      chart({ title: "Requests/s", lines: [{ of: (p) => p.rate }], format: rate, least: 1 }),
      chart({ title: "Errors", lines: [{ of: (p) => p.errors }], format: percent, least: 0.01 }),
      chart({
        title: "Latency", format: latency, least: 0.001,
        lines: [{ name: "p50", of: (p) => p.p50 }, { name: "p99", of: (p) => p.p99 }],
      }),
      chart({ title: "In flight", lines: [{ of: (p) => p.inFlight }], format: (value) => count(value), least: 1 }),
    ];
    this.rollout = new RolloutView(page, name);
    this.pools = make("div", { class: "pools" });
    this.views = new Map();
    this.node.replaceChildren(
      make("header", {}, this.title, this.served, make("span", { class: "grow" }),
        make("div", { class: "row" },
          make("button", { type: "button", class: "quiet", onclick: () => page.explain(name), "aria-describedby": this.title.id }, "Explain"),
          this.switchButton, this.backButton),
        make("p", { class: "about-service" }, this.since, this.detection, this.last)),
      make("div", { class: "body" }, this.split.node, make("div", { class: "figures" }, this.charts.map((each) => each.node)),
        this.rollout.node, this.pools));
  }

  update(service, filter) {
    this.service = service;
    this.filter = filter;
    if (this.visible) this.refresh();
  }

  refresh() {
    const { service, page } = this;
    if (!service) return;
    if (!this.pools) this.#fill();
    const now = page.now();
    const serving = service.pools.some((pool) => pool.share > 0 && pool.targets.some((target) => target.share > 0));
    const released = (pool) => service.rollout && [service.rollout.from, service.rollout.to].includes(pool.name);
    const fallback = service.pools.find((pool) => pool.share > 0 && !pool.active && !released(pool));
    say(this.served, !serving ? "✕ no target can serve: clients get 503" : fallback ? `▲ served by its fallback ${fallback.name}` : "● served");
    this.served.className = serving ? "tag on" : "tag bad";
    show(this.since, service.pools.length > 1);
    say(this.since, `${service.active} has been active ${service.since ? `for ${span(now - service.since)}` : "since the start"}.`);
    say(this.detection, service.detection
      ? `A target that dies is out of rotation after ${span(service.detection.expected)}, at worst after ${span(service.detection.worst)}.` : "");
    const last = service.rollout || service.last_rollout?.result === "done" ? null : service.last_rollout;
    say(this.last, last ? `Last rollout, ${span(now - last.at)} ago: ${last.text}.` : "");
    show(this.switchButton, service.pools.length > 1);
    show(this.backButton, Boolean(service.previous && !service.rollout));
    show(this.split.node, service.pools.length > 1);
    this.split.update(service.pools.map((pool, place) => [pool.name, pool.share, place]));
    const points = page.history.of(service.name);
    for (const each of this.charts) each.update(points, now);
    this.rollout.update(service);
    keyed(this.pools, service.pools, (pool) => pool.name, (pool) => {
      const view = new PoolView(page, service, pool, this.few);
      this.views.set(view.node, view);
      return view.node;
    }, (node, pool) => this.views.get(node).update(service, pool, this.filter));
    for (const node of this.views.keys()) if (node.parentNode !== this.pools) this.views.delete(node);
  }
}

/** The line of totals above everything. */
export class TotalsView {
  constructor() {
    this.node = make("dl", { class: "totals live" });
  }

  update(status, now) {
    const targets = status.services.flatMap((service) => service.pools).flatMap((pool) => pool.targets);
    const ready = targets.filter((target) => target.serves).length;
    const sum = (of) => status.services.reduce((total, service) => total + of(service), 0);
    const all = sum((service) => service.rate);
    const failing = all ? sum((service) => service.rate * service.error_rate) / all : 0;
    const facts = [
      ["Services", count(status.services.length)],
      ["Targets ready", `${count(ready)} of ${count(targets.length)}`],
      ["Requests", `${rate(all)}/s`],
      ["Errors", percent(failing)],
      ["Retries", `${rate(sum((service) => service.retry_rate))}/s`],
      ["In flight", count(status.in_flight)],
      ["Clients", count(status.downstream_connections)],
      ["Workers", count(status.workers.length) + (status.worker_restarts ? ` (${status.worker_restarts} restarted)` : "")],
      ["Up for", age(now - status.started_at)],
    ];
    keyed(this.node, facts, ([name]) => name, ([name]) => make("div", {}, make("dt", {}, name), make("dd")),
      (node, [, value]) => say(node.lastChild, value));
  }
}
