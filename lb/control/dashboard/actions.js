// The orders: switch, complete, roll back, drain, take back in, weight. Each says first what will happen.

import { call, inPath } from "./api.js";
import { confirm } from "./confirm.js";
import { make, show } from "./dom.js";
import { toast } from "./shell.js";
import { splitBar } from "./split.js";
import { STATE_WORDS, many, percent, shortName } from "./words.js";

const inRotation = (target) => target.state === "ready" || target.state === "slow_start";

/** Sentences as a list. */
function list(...sentences) {
  return make("ul", { class: "will" }, sentences.flat().filter(Boolean).map((each) => make("li", {}, each)));
}

/** Who has the traffic: [[pool, percent, place], …]. */
function split(label, parts) {
  const bar = splitBar();
  bar.update(parts);
  return make("div", { class: "before-after" }, make("span", { class: "muted" }, label), bar.node);
}

/** How ready a pool is: a good message, or a warning with those that are not. */
function readiness(pool) {
  const missing = pool.targets.filter((target) => !inRotation(target));
  if (!missing.length) return make("p", { class: "message good" }, pool.targets.length === 1
    ? `● The one target of ${pool.name} is ready.` : `● All ${many(pool.targets.length, "target")} of ${pool.name} are ready.`);
  return make("div", { class: `message ${pool.healthy ? "warn" : "bad"}` },
    make("strong", {}, `▲ ${pool.healthy} of ${many(pool.targets.length, "target")} of ${pool.name} ${pool.healthy === 1 ? "is" : "are"} ready`),
    make("ul", {}, missing.slice(0, 5).map((target) => make("li", {}, `${shortName(target.id)}: ${STATE_WORDS[target.state]}: ${target.reason}`)),
      missing.length > 5 && make("li", {}, `and ${missing.length - 5} more`)));
}

export class Actions {
  /** `page`: status(), service(name), target(id), subscribe(listener), refresh(). */
  constructor(page) {
    this.page = page;
  }

  #ask(options) {
    confirm({ ...options, subscribe: (listener) => this.page.subscribe(listener), done: (answer) => {
      toast(options.said(answer));
      this.page.refresh();
    } });
  }

  /** To another pool: at once, or in steps. */
  switchService(name) {
    const service = this.page.service(name);
    const others = service.pools.filter((pool) => pool.name !== service.active);
    const radio = (group, value, checked, ...text) => make("label", { class: "choice" },
      make("input", { type: "radio", name: group, value, checked }), text);
    const target = make("fieldset", { class: "field" }, make("legend", {}, "Send the traffic to"),
      others.map((pool, index) => radio("to", pool.name, index === 0, make("b", {}, pool.name), ` (${pool.healthy} of ${pool.requested} ready)`)));
    const how = make("fieldset", { class: "field" }, make("legend", {}, "How"),
      radio("how", "once", true, "all at once"),
      radio("how", "steps", false, "in steps (canary)"),
      radio("how", "configured", false, "as the configuration says (", make("code", {}, "rollout:"), ")"));
    const steps = make("input", { id: "steps", value: "5, 25, 50, 100", inputmode: "numeric", autocomplete: "off", "aria-describedby": "steps-hint" });
    const time = make("input", { id: "step-time", value: "60s", autocomplete: "off" });
    const canary = make("div", { class: "fields", hidden: true },
      make("div", { class: "field" }, make("label", { for: "steps" }, "Percent, step by step"), steps, make("span", { class: "hint", id: "steps-hint" }, "The last one is 100.")),
      make("div", { class: "field" }, make("label", { for: "step-time" }, "Time of a step"), time));
    const chosen = (fieldset) => fieldset.querySelector("input:checked").value;
    const wanted = () => {
      const kind = chosen(how);
      if (kind === "once") return [100];
      return kind === "steps" ? steps.value.split(/[\s,;%]+/).filter(Boolean).map(Number) : null;
    };
    this.#ask({
      title: `Switch ${name}`,
      fields: [target, how, canary],
      describe: () => {
        show(canary, chosen(how) === "steps");
        const now = this.page.service(name);
        const to = chosen(target);
        const pool = now.pools.find((each) => each.name === to);
        const place = (wantedName) => now.pools.findIndex((each) => each.name === wantedName);
        const order = wanted();
        const before = split("Now", now.pools.map((each, index) => [each.name, each.share, index]));
        const under = now.rollout && make("p", { class: "message warn" },
          `▲ A rollout is under way (${now.rollout.from} → ${now.rollout.to}, ${now.rollout.share} %): another one is refused until it is completed or rolled back.`);
        if (!order) {
          return [before, list(`${to} gets the traffic in the steps that the configuration has for ${name}; without any, at once.`), under, readiness(pool)];
        }
        const first = order[0];
        if (order.length === 1) {
          return [before, split("Then", [[to, 100, place(to)]]),
            list(`Every new request goes to ${to} from the moment that all workers have confirmed it.`,
              `Requests under way at ${now.active} (${now.in_flight} now) end there; none is cut by the switch.`,
              `${to} is watched afterwards, and Roll back returns to ${now.active} at once.`), under, readiness(pool)];
        }
        return [before, Number.isFinite(first) && split("First step", [[now.active, 100 - first, place(now.active)], [to, first, place(to)]]),
          list(`${to} gets ${order.map((step) => `${step} %`).join(", then ")} of the requests; each step lasts ${time.value.trim() || "as configured"} or longer.`,
            `A step ends only with enough requests to tell. If ${to} is worse than ${now.active}, all traffic goes back by itself.`), under, readiness(pool)];
      },
      verb: "Switch",
      forcible: "Switch all the same, although targets are not ready (force)",
      order: (force) => {
        const body = { to: chosen(target), force };
        const order = wanted();
        if (order) body.steps = order.map((step) => (Number.isInteger(step) ? step : -1));
        if (order && order.length > 1 && time.value.trim()) body.step_time = time.value.trim();
        return this.#post(name, "switch", body, { "If-Match": `"${this.page.status().revision}"` });
      },
      said: (answer) => (answer.rollout ? `${name}: ${answer.rollout.text}` : `${name} is served by ${answer.active}.`),
    });
  }

  /** The rest of a rollout at once. */
  complete(name) {
    const { to } = this.page.service(name).rollout;
    this.#ask({
      title: `Complete the rollout of ${name}`,
      describe: () => {
        const service = this.page.service(name);
        const pool = service.pools.find((each) => each.name === to);
        return [split("Now", service.pools.map((each, index) => [each.name, each.share, index])),
          split("Then", [[to, 100, service.pools.indexOf(pool)]]),
          list(`All requests go to ${to} at once; the steps that are left are skipped, whatever the analysis would have found.`), readiness(pool)];
      },
      verb: "Complete",
      forcible: "Complete it all the same, although targets are not ready (force)",
      order: (force) => this.#post(name, "switch", { to, steps: [100], force }),
      said: () => `${name}: all requests go to ${to}.`,
    });
  }

  /** All traffic to where it came from. */
  rollBack(name) {
    const back = (service) => (service.rollout ? service.rollout.from : service.previous);
    this.#ask({
      title: `Roll ${name} back`,
      describe: () => {
        const service = this.page.service(name);
        const pool = service.pools.find((each) => each.name === back(service));
        if (!pool) return [list(`${name} has no pool to roll back to.`)];
        return [split("Now", service.pools.map((each, index) => [each.name, each.share, index])),
          split("Then", [[pool.name, 100, service.pools.indexOf(pool)]]),
          list(`Every new request goes to ${pool.name} at once, whatever its readiness.`, "Requests under way end where they are."), readiness(pool)];
      },
      verb: "Roll back",
      danger: true,
      order: () => this.#post(name, "rollback", undefined),
      said: (answer) => `${name} is rolled back to ${answer.active}.`,
    });
  }

  drain(id) {
    this.#ask({
      title: `Drain ${shortName(id)}`,
      describe: () => {
        const target = this.page.target(id);
        const pool = this.page.pool(id);
        const others = pool.targets.filter((each) => each.id !== id && inRotation(each));
        const none = others.length === 0 && pool.share > 0 && inRotation(target);
        return [list(`${shortName(id)} gets no new requests, also after a restart of lb, until it is taken back in.`,
          `The ${target.in_flight} in flight there may end; tunnels (${target.tunnels}) are closed when the drain's time is over.`,
          `Its ${percent(target.share)} of ${pool.name} go to the ${many(others.length, "ready target")} that ${others.length === 1 ? "is" : "are"} left there.`),
        none && make("p", { class: "message warn" }, "▲ It is the last ready target of a pool with traffic: the drain will be refused unless it is forced.")];
      },
      verb: "Drain",
      forcible: "Drain it all the same, although too few targets are left (force)",
      order: (force) => call(`/api/v1/targets/${inPath(id)}/drain`, { method: "POST", body: { force } }),
      said: (answer) => (answer.safe ? `${shortName(id)} is drained: it is safe to stop.` : `${shortName(id)} drains: ${answer.in_flight} requests and ${answer.tunnels} tunnels are left.`),
    });
  }

  undrain(id) {
    this.#ask({
      title: `Take ${shortName(id)} back in`,
      describe: () => [list("It gets requests again as soon as its checks say that it is ready; at once, if they do now."),
        make("p", { class: "muted" }, `Its last probe: ${this.page.target(id).last_probe?.text || "none yet"}.`)],
      verb: "Take back in",
      order: () => call(`/api/v1/targets/${inPath(id)}/undrain`, { method: "POST" }),
      said: (answer) => `${shortName(id)} is no longer drained; it is ${STATE_WORDS[answer.state]}.`,
    });
  }

  weight(id) {
    const now = this.page.target(id);
    const input = make("input", { id: "weight", type: "number", min: 0, max: 1000, step: 1, required: true, value: now.weight });
    this.#ask({
      title: `Weight of ${shortName(id)}`,
      fields: [make("div", { class: "field" }, make("label", { for: "weight" }, "Weight, relative to the others of its pool"), input)],
      describe: () => {
        const target = this.page.target(id);
        const pool = this.page.pool(id);
        const wanted = input.valueAsNumber;
        if (!Number.isFinite(wanted)) return [list("A whole number from 0 to 1000.")];
        if (wanted === target.weight) return [list("It stays as it is.")];
        const after = inRotation(target) ? shareWith(target, pool, wanted) : null;
        return [list(`Its weight goes from ${target.weight} to ${wanted}, also after a restart of lb.`,
          after === null ? `It is ${STATE_WORDS[target.state]}: nothing changes before it is ready.`
            : wanted === 0 ? "It gets no new requests; it is still probed."
              : `Its share of ${pool.name} goes from ${percent(target.share)} to about ${percent(after)}.`,
          target.configured_weight !== null && `The file says ${target.configured_weight}; with that weight, the file counts again.`)];
      },
      verb: "Set the weight",
      order: () => call(`/api/v1/targets/${inPath(id)}/weight`, { method: "PUT", body: { weight: input.valueAsNumber } }),
      said: (answer) => `${shortName(id)} has weight ${answer.weight}.`,
    });
  }

  #post(name, what, body, headers = {}) {
    return call(`/api/v1/services/${encodeURIComponent(name)}/${what}`, { method: "POST", body, headers, patience: 120_000 });
  }
}

/** The share that a target of `pool` would have with another weight. */
function shareWith(target, pool, weight) {
  const known = target.share && target.weight ? target : pool.targets.find((each) => each.share && each.weight);
  if (!known) return weight ? 1 : 0;
  const unit = known.share / known.weight; // of the present sum, for each unit of weight
  const mine = unit * weight;
  return mine / (1 - target.share + mine || 1);
}
