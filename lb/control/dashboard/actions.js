// The orders: switch, complete, roll back, drain, take back in, weight. Each says first what will happen.

import { call, inPath } from "./api.js";
import { confirm } from "./confirm.js";
import { make, show } from "./dom.js";
import { toast } from "./shell.js";
import { splitBar } from "./split.js";
import { STATE_WORDS, many, percent, shortName } from "./words.js";

/** Who has the traffic: [[pool, percent, place], …]. */
function split(label, parts) {
  const bar = splitBar();
  bar.update(parts);
  return make("div", { class: "before-after" }, make("span", { class: "muted" }, label), bar.node);
}

/** How ready a pool is: a good message, or a warning with those that are not; nothing of a pool that is gone. */
function readiness(pool) {
  if (!pool) return "";
  const missing = pool.targets.filter((target) => !target.serves);
  if (!missing.length) return make("p", { class: "message good readiness" }, pool.targets.length === 1
    ? `● The one target of ${pool.name} is ready.` : `● All ${many(pool.targets.length, "target")} of ${pool.name} are ready.`);
  return make("div", { class: `message ${pool.healthy ? "warn" : "bad"} readiness` },
    make("strong", {}, `▲ ${pool.healthy} of ${many(pool.targets.length, "target")} of ${pool.name} ${pool.healthy === 1 ? "is" : "are"} ready`),
    make("ul", {}, missing.slice(0, 5).map((target) => make("li", {}, `${shortName(target.id)}: ${STATE_WORDS[target.state]}: ${target.reason}`)),
      missing.length > 5 && make("li", {}, `and ${missing.length - 5} more`)));
}

export class Actions {
  /** `page`: service(name), pool(id), target(id), subscribe(listener), refresh(), status(). */
  constructor(page) {
    this.page = page;
  }

  /** `subject`: what it is about; when a reload takes that away, there is nothing left to confirm. */
  #ask(subject, options) {
    const dialog = confirm({
      ...options,
      subscribe: (listener) => this.page.subscribe(() => {
        if (this.page.knows(subject)) {
          listener();
        } else {
          dialog.close();
          toast(`${subject} is gone: the configuration has changed.`, "bad");
        }
      }),
      done: (answer) => {
        toast(options.said(answer));
        this.page.refresh();
      },
    });
  }

  /** To another pool: at once, or in steps. */
  switchService(name) {
    const service = this.page.service(name);
    const others = service.pools.filter((pool) => pool.name !== service.active);
    const radio = (group, value, checked, ...text) => make("label", { class: "choice" },
      make("input", { type: "radio", name: group, value, checked }), text);
    const target = make("fieldset", { class: "field" }, make("legend", {}, "Send the traffic to"),
      others.map((pool, index) => radio("to", pool.name, index === 0, pool.name)));
    const how = make("fieldset", { class: "field" }, make("legend", {}, "How"),
      radio("how", "once", true, "all at once"),
      radio("how", "steps", false, "in steps (canary)"),
      radio("how", "configured", false, "as the configuration says (", make("code", {}, "rollout:"), ")"));
    const steps = make("input", { id: "steps", value: "5, 25, 50, 100", autocomplete: "off", "aria-describedby": "steps-hint" });
    const time = make("input", { id: "step-time", value: "60s", autocomplete: "off", "aria-describedby": "time-hint" });
    const canary = make("div", { class: "fields", hidden: true },
      make("div", { class: "field" }, make("label", { for: "steps" }, "Percent, step by step"), steps, make("span", { class: "hint", id: "steps-hint" }, "The last one is 100.")),
      make("div", { class: "field" }, make("label", { for: "step-time" }, "Time of a step"), time, make("span", { class: "hint", id: "time-hint" }, "At least; such as 60s or 5m.")));
    const chosen = (fieldset) => fieldset.querySelector("input:checked").value;
    const wanted = () => {
      const kind = chosen(how);
      if (kind === "once") return [100];
      return kind === "steps" ? steps.value.split(/[\s,;%]+/).filter(Boolean).map(Number) : null;
    };
    const body = (force) => {
      const order = wanted();
      const said = { to: chosen(target), force };
      if (order) said.steps = order;
      if (order && chosen(how) === "steps" && time.value.trim()) said.step_time = time.value.trim();
      return said;
    };
    this.#ask(name, {
      title: `Switch ${name}`,
      fields: [target, how, canary],
      describe: () => {
        show(canary, chosen(how) === "steps");
        const now = this.page.service(name);
        const to = chosen(target);
        const pool = now.pools.find((each) => each.name === to);
        const place = (wantedName) => now.pools.findIndex((each) => each.name === wantedName);
        const first = wanted()?.[0];
        const then = first === 100 ? split("Then", [[to, 100, place(to)]])
          : first > 0 && first < 100 && split("First step", [[now.active, 100 - first, place(now.active)], [to, first, place(to)]]);
        return [split("Now", now.pools.map((each, index) => [each.name, each.share, index])), then, readiness(pool)].filter(Boolean);
      },
      check: () => {
        if (chosen(how) !== "steps") return null;
        const order = wanted();
        const grows = order.every((step, index) => Number.isInteger(step) && step > (index ? order[index - 1] : 0));
        if (!grows || order[order.length - 1] !== 100) return [steps, "The steps are whole percentages that grow, the last one 100: such as 5, 25, 50, 100."];
        return /^(\d+(\.\d+)?(ms|s|m|h|d))*$/.test(time.value.trim()) ? null : [time, "A time is a number with a unit: such as 60s, 5m or 1h."];
      },
      preview: (force) => this.#post(name, "switch/preview", body(force)),
      verb: "Switch",
      forcible: "Switch all the same (force)",
      order: (force) => this.#post(name, "switch", body(force), { "If-Match": `"${this.page.status().revision}"` }),
      said: (answer) => (answer.rollout ? `${name}: ${answer.rollout.text}` : `${name} is served by ${answer.active}.`),
    });
  }

  /** The rest of a rollout at once. */
  complete(name) {
    const { to } = this.page.service(name).rollout;
    this.#ask(name, {
      title: `Complete the rollout of ${name}`,
      describe: () => {
        const service = this.page.service(name);
        const pool = service.pools.find((each) => each.name === to);
        return [split("Now", service.pools.map((each, index) => [each.name, each.share, index])),
          split("Then", [[to, 100, service.pools.indexOf(pool)]]), readiness(pool)];
      },
      preview: (force) => this.#post(name, "switch/preview", { to, steps: [100], force }),
      verb: "Complete",
      forcible: "Complete it all the same (force)",
      order: (force) => this.#post(name, "switch", { to, steps: [100], force }),
      said: () => `${name}: all requests go to ${to}.`,
    });
  }

  /** All traffic to where it came from. */
  rollBack(name) {
    this.#ask(name, {
      title: `Roll ${name} back`,
      describe: () => {
        const service = this.page.service(name);
        const back = service.rollout ? service.rollout.from : service.previous;
        const pool = service.pools.find((each) => each.name === back);
        const now = split("Now", service.pools.map((each, index) => [each.name, each.share, index]));
        return pool ? [now, split("Then", [[pool.name, 100, service.pools.indexOf(pool)]]), readiness(pool)] : [now];
      },
      preview: (force) => this.#post(name, "rollback/preview", { force }),
      verb: "Roll back",
      danger: true,
      forcible: "Roll back all the same (force)",
      order: (force) => this.#post(name, "rollback", { force }),
      said: (answer) => `${name} is rolled back to ${answer.active}.`,
    });
  }

  drain(id) {
    const at = `/api/v1/targets/${inPath(id)}/drain`;
    this.#ask(id, {
      title: `Drain ${shortName(id)}`,
      describe: () => {
        const target = this.page.target(id);
        return [make("p", {}, `${id} is ${STATE_WORDS[target.state]} and gets ${percent(target.share)} of the requests of its pool; ${target.in_flight} are in flight there.`)];
      },
      preview: (force) => call(`${at}/preview`, { method: "POST", body: { force } }),
      verb: "Drain",
      forcible: "Drain it all the same (force)",
      order: (force) => call(at, { method: "POST", body: { force } }),
      said: (answer) => (answer.safe ? `${shortName(id)} is drained: it is safe to stop.` : `${shortName(id)} drains: ${answer.in_flight} requests and ${answer.tunnels} tunnels are left.`),
    });
  }

  undrain(id) {
    const at = `/api/v1/targets/${inPath(id)}/undrain`;
    this.#ask(id, {
      title: `Take ${shortName(id)} back in`,
      describe: () => [make("p", {}, `Its last probe: ${this.page.target(id).last_probe?.text || "none yet"}.`)],
      preview: (force) => call(`${at}/preview`, { method: "POST", body: { force } }),
      verb: "Take back in",
      forcible: "Take it back in all the same (force)",
      order: (force) => call(at, { method: "POST", body: { force } }),
      said: (answer) => `${shortName(id)} is no longer drained; it is ${STATE_WORDS[answer.state]}.`,
    });
  }

  weight(id) {
    const at = `/api/v1/targets/${inPath(id)}/weight`;
    const now = this.page.target(id);
    const input = make("input", { id: "weight", type: "number", min: 0, max: 1000, step: 1, value: now.weight, "aria-describedby": "weight-hint" });
    const wanted = (force) => ({ weight: input.valueAsNumber, force });
    this.#ask(id, {
      title: `Weight of ${shortName(id)}`,
      fields: [make("div", { class: "field" }, make("label", { for: "weight" }, "Weight"), input,
        make("span", { class: "hint", id: "weight-hint" }, "Relative to the other targets of its pool, from 0 (no requests) to 1000. It is kept over restarts of lb."))],
      describe: () => {
        const target = this.page.target(id);
        return [make("p", {}, `Its weight is ${target.weight}${target.configured_weight === null ? "" : `, in the file ${target.configured_weight}`}.`)];
      },
      check: () => (Number.isInteger(input.valueAsNumber) && input.valueAsNumber >= 0 && input.valueAsNumber <= 1000
        ? null : [input, "A weight is a whole number from 0 to 1000."]),
      preview: (force) => call(`${at}/preview`, { method: "POST", body: wanted(force) }),
      verb: "Set the weight",
      forcible: "Set it all the same (force)",
      order: (force) => call(at, { method: "PUT", body: wanted(force) }),
      said: (answer) => `${shortName(id)} has weight ${answer.weight}.`,
    });
  }

  #post(name, what, body, headers = {}) {
    return call(`/api/v1/services/${encodeURIComponent(name)}/${what}`, { method: "POST", body, headers, patience: 120_000 });
  }
}
