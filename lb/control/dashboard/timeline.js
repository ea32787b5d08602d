// What happened, newest first: loaded once, then live. Short beside the overview, whole on a view of its own.

import { call, follow, now } from "./api.js";
import { attribute, keyed, make, say, show } from "./dom.js";
import { clock, count, many } from "./words.js";

const KEPT = 2000; // events that the page remembers
const STEP = 100; // events that are shown at once
const BACK = 24 * 3600; // seconds that are loaded at the start
const TOGETHER = 5; // seconds between two events that may be told as one
const LOOK_BACK = 6; // lines above that it may join
const KINDS = {
  transition: "State", switch: "Switch", rollout: "Rollout", drain: "Drain", weight: "Weight", liveness: "Liveness",
  address: "Address", discovery: "Discovery", handover: "Handover", reload: "Reload", start: "Start", stop: "Stop", upgrade: "Upgrade", worker: "Worker", state: "State file", note: "Note",
};
/** Kinds of which many targets of a pool may tell the same at once. */
const FOLDED = new Set(["transition", "liveness"]);
/** Causes that are told one by one all the same: how a restart went is of one target alone. */
const SINGLE = new Set(["liveness_restart", "liveness_restarted"]);
/** Kinds that are read out when they come in; states of single targets would be too many. */
const SPOKEN = new Set(["switch", "rollout", "reload"]);

/** The events that the page knows. */
export class Events {
  #events = [];
  #listeners = [];
  #waiting = false;
  #stop = null;

  /** `announce` reads out; `onNews` hears that something has happened. */
  constructor(announce, onNews) {
    this.announce = announce;
    this.onNews = onNews;
    this.connected = false;
  }

  onChange(listener) {
    this.#listeners.push(listener);
  }

  /** Newest first. */
  get all() {
    return this.#events;
  }

  /** Load the past and follow from there; once more if lb has begun anew and counts again. */
  async start() {
    this.#stop?.abort();
    const stop = this.#stop = new AbortController();
    const began = now();
    const past = await call(`/api/v1/events?since=${began - BACK}`);
    if (stop.signal.aborted) return;
    this.#events = past.slice(-KEPT).reverse();
    this.#changed();
    await follow({
      after: past.length ? past[past.length - 1].id : 0,
      since: began,
      signal: stop.signal,
      onState: (connected) => { this.connected = connected; this.#changed(); },
      onEvent: (event) => {
        if (this.#events.length && event.id <= this.#events[0].id) return;
        this.#events.unshift(event);
        if (this.#events.length > KEPT) this.#events.length = KEPT;
        if (SPOKEN.has(event.kind)) this.announce(event.service ? `${event.subject}: ${event.text}` : event.text);
        this.onNews();
        this.#changed();
      },
    });
  }

  #changed() {
    if (this.#waiting) return; // a storm of events is shown once per frame
    this.#waiting = true;
    requestAnimationFrame(() => {
      this.#waiting = false;
      for (const listener of this.#listeners) listener();
    });
  }
}

/** A list of events. */
export class TimelineView {
  constructor(page, events, { short }) {
    this.page = page;
    this.events = events;
    this.short = short;
    this.limit = short ? 14 : STEP;
    this.live = make("span", { class: "tag" });
    this.list = make("ol", { class: "timeline live" });
    this.empty = make("p", { class: "muted" });
    const head = make("header", {}, make("h2", { id: short ? "latest" : "timeline", tabindex: "-1" }, short ? "Latest events" : "Timeline"), this.live, make("span", { class: "grow" }));
    this.node = make("section", { class: "card", "aria-labelledby": short ? "latest" : "timeline" }, head,
      make("div", { class: "body" }, this.list, this.empty));
    if (short) {
      head.append(make("a", { href: "#events" }, "All events"));
    } else {
      this.kind = make("select", { id: "kind", onchange: () => this.#again() },
        make("option", { value: "" }, "all kinds"), Object.entries(KINDS).map(([value, text]) => make("option", { value }, text)));
      this.text = make("input", { id: "event-filter", type: "search", placeholder: "service, target, person, words", oninput: () => this.#again() });
      this.counted = make("span", { class: "muted", role: "status" });
      this.more = make("button", { type: "button", onclick: () => { this.limit += STEP; this.update(); } }, "Show more");
      head.append(make("label", { for: "kind" }, "Kind"), this.kind, make("label", { for: "event-filter" }, "Filter"), this.text, this.counted);
      this.node.lastChild.append(this.more);
    }
    events.onChange(() => { if (this.node.isConnected) this.update(); });
  }

  #again() {
    this.limit = STEP;
    this.update();
  }

  update() {
    let events = this.events.all;
    if (!this.short) {
      const kind = this.kind.value;
      const words = this.text.value.toLowerCase().split(/\s+/).filter(Boolean);
      if (kind || words.length) {
        events = events.filter((event) => (!kind || event.kind === kind)
          && words.every((word) => `${event.subject} ${event.text} ${event.actor}`.toLowerCase().includes(word)));
      }
      say(this.counted, `${count(events.length)} of the last ${count(this.events.all.length)}`);
      show(this.more, events.length > this.limit);
    }
    const live = this.events.connected && this.page.connected;
    say(this.live, live ? "● live" : "○ not live");
    this.live.className = live ? "tag on" : "tag";
    show(this.empty, !events.length);
    say(this.empty, this.events.all.length ? "Nothing matches." : "Nothing has happened in the last day.");
    const shown = this.short ? folded(events, this.limit) : events.slice(0, this.limit).map((event) => ({ event, same: 1 }));
    keyed(this.list, shown, ({ event }) => event.id, ({ event }) => this.#item(event), (item, { event, same }) => {
      if (item.same === same) return;
      item.same = same;
      item.lastChild.replaceChildren(make("b", {}, `${event.service}/${event.pool}`), ` ${many(same, "target")} ${event.text}`);
    });
  }

  #item(event) {
    const known = this.page.knows(event.subject);
    // What befell no service alone is about lb: that needs no saying.
    const subject = !event.service ? "" : known
      ? make("button", { type: "button", class: "plain name", onclick: () => this.page.explain(event.subject), title: "Explain" }, event.subject)
      : make("b", {}, event.subject);
    const change = !this.short && event.change_unsaid
      ? make("span", { class: "muted" }, ` (${event.before} → ${event.after})`) : null;
    const when = make("time", { datetime: new Date(event.at * 1000).toISOString() }, clock(event.at));
    const item = make("li", {}, when, make("span", { class: `tag kind-${event.kind}` }, KINDS[event.kind] || event.kind),
      make("span", { class: "what" }, subject, subject && " ", event.text, change,
        event.actor && make("span", { class: "muted" }, ` — ${event.actor}`)));
    item.same = 1;
    attribute(item, "data-id", event.id);
    return item;
  }
}

/**
 * Newest first, with what befell many targets of a pool alike within a few seconds as one: [{event, same}]. The event
 * is the oldest of them.
 */
function folded(events, limit) {
  const groups = [];
  for (const event of events) {
    const near = FOLDED.has(event.kind) && event.cause && !SINGLE.has(event.cause)
      && groups.slice(-LOOK_BACK).find((group) => group.event.at - event.at < TOGETHER && alike(group.event, event));
    if (near) {
      near.event = event;
      near.same += 1;
    } else {
      if (groups.length === limit) break;
      groups.push({ event, same: 1 });
    }
  }
  return groups;
}

/** Whether the same befell two targets of a pool, for the same cause. */
function alike(one, other) {
  return ["kind", "service", "pool", "before", "after", "cause"].every((field) => one[field] === other[field]);
}
