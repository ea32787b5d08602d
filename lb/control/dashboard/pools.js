// One pool: a line of figures, and its targets below it. A few targets are a table; many are a dense picture with one
// mark each, and a table in pages, the worst first. A click on a column's name sorts by it, another one the other way
// around, a third one as before.

import { attribute, keyed, make, say, show } from "./dom.js";
import { STATES, STATE_WORDS, age, count, latency, many, percent, rate, shortName } from "./words.js";

const FEW = 24; // targets that are all shown at once
const PAGE = 20; // targets on one page of a larger pool
const CELL = 12; // pixels of a mark in the picture, with its gap

/** Column → what it is sorted by. Figures begin with the greatest, names with the first. */
const SORTED = {
  "Target": (target) => shortName(target.id),
  "Since": (target) => -target.since,
  "Share": (target) => target.share,
  "Weight": (target) => target.weight,
  "In flight": (target) => target.in_flight,
  "Req/s": (target) => target.rate,
  "Errors": (target) => target.error_rate,
  "p50": (target) => target.p50,
  "p99": (target) => target.p99,
};

/** The targets by one column; those without a value come last, whichever way around. */
function sorted(targets, { name, down }) {
  const of = SORTED[name];
  const known = targets.filter((target) => of(target) !== null);
  const compare = name === "Target" ? (a, b) => of(a).localeCompare(of(b), undefined, { numeric: true }) : (a, b) => of(a) - of(b);
  known.sort((a, b) => (down ? -compare(a, b) : compare(a, b)));
  return [...known, ...targets.filter((target) => of(target) === null)];
}

/** Where the targets are found, and what is wrong with that. */
function sourceText({ source, named, error, problems, last_success, kept }) {
  const answered = last_success ? `, ${age(Date.now() / 1000 - last_success)} ago` : "";
  return [
    `Found by ${source}: ${many(named, "target")}${answered}.`,
    error && `▲ It does not answer, and its targets stay: ${error}`,
    ...problems.map((problem) => `▲ A part of it cannot be used: ${problem}`),
    kept.length > 0 && `▲ ${many(kept.length, "target")} that it no longer names ${kept.length === 1 ? "is" : "are"} kept.`,
  ].filter(Boolean).join(" ");
}

export class PoolView {
  constructor(page, service, pool, open) {
    this.page = page;
    this.at = 0; // page of the table
    this.state = ""; // only targets in this state; empty: all
    this.sort = null; // {name of a column, down}; null: in the order of the file, or the worst first
    this.columns = new Map(); // name → its head
    this.name = make("h3", {}, pool.name);
    this.active = make("span", { class: "tag on" }, "active");
    this.facts = make("span", { class: "facts" });
    this.body = make("div", { class: "targets" });
    this.node = make("details", { class: "pool" },
      make("summary", {}, this.name, this.active, this.facts),
      this.body);
    this.node.open = open;
    this.node.addEventListener("toggle", () => { if (this.node.open) this.#targets(); });
    this.states = make("div", { class: "row states", role: "group", "aria-label": "Show only targets that are" });
    this.picture = make("canvas", { class: "picture", role: "img", "aria-label": "No target yet" });
    this.hint = make("p", { class: "muted hint" });
    this.source = make("p", { class: "muted hint" });
    this.rows = make("tbody");
    this.counted = make("span", { class: "muted", role: "status" });
    this.earlier = make("button", { type: "button", onclick: () => this.#turn(-1) }, "‹ Previous");
    this.later = make("button", { type: "button", onclick: () => this.#turn(1) }, "Next ›");
    this.pager = make("div", { class: "row pager" }, this.counted, this.earlier, this.later);
    const column = (text, kind = "num", long = "") => {
      const shown = long ? make("abbr", { title: long }, text) : text;
      if (!SORTED[text]) return make("th", { scope: "col", class: kind }, shown);
      const head = make("th", { scope: "col", class: kind }, make("button", { type: "button", class: "plain sort", onclick: () => this.#sortBy(text) }, shown));
      this.columns.set(text, head);
      return head;
    };
    this.body.append(this.source, this.states, this.picture, this.hint, make("div", { class: "wide" }, make("table", {},
      make("caption", { class: "hidden-text" }, `Targets of ${service.name}/${pool.name}`),
      make("thead", {}, make("tr", {}, column("State", ""), column("Target", ""), column("Since"), column("Share", "num extra"),
        column("Weight", "num extra"), column("In flight", "num extra"), column("Req/s", "num", "Requests per second"), column("Errors"),
        column("p50", "num extra"), column("p99"))),
      this.rows)),
    make("p", { class: "muted hint narrow" }, "A wider window shows more columns; a target's name leads to all of its figures."), this.pager);
    this.#watchPicture();
  }

  update(service, pool, filter) {
    this.service = service;
    this.pool = pool;
    this.filter = filter;
    show(this.active, pool.active);
    const source = pool.discovery;
    show(this.source, Boolean(source));
    if (source) {
      attribute(this.source, "class", source.error || source.kept.length ? "message warn" : "muted hint");
      say(this.source, sourceText(source));
    }
    const all = pool.targets.length;
    const sick = pool.targets.some((target) => !target.serves && target.weight > 0);
    const facts = [
      [pool.healthy ? "" : pool.share ? "bad" : "", "share", `${pool.share} %`, "traffic"],
      [sick ? "bad" : "", "ready", `${sick ? "✕ " : ""}${count(pool.healthy)} of ${count(all)}`, "ready"],
      ["", "rate", `${rate(pool.rate)}/s`, ""],
      [pool.error_rate ? "bad" : "", "errors", percent(pool.error_rate), "errors"],
      ["", "refused", percent(pool.client_error_rate), "4xx"],
      ["", "p50", latency(pool.p50), "p50"],
      ["", "p99", latency(pool.p99), "p99"],
      ["", "flight", count(pool.targets.reduce((sum, target) => sum + target.in_flight, 0)), "in flight"],
      ...(pool.waiting ? [["bad", "waiting", count(pool.waiting), "waiting"]] : []),
    ];
    keyed(this.facts, facts, (fact) => fact[1], ([, name]) => make("span", { class: `fact ${name}` }, make("b"), " ", make("span")),
      (node, [kind, , value, unit]) => {
        attribute(node.firstChild, "class", kind || null);
        say(node.firstChild, value);
        say(node.lastChild, unit);
      });
    if (filter && !this.forced) {
      this.forced = { open: this.node.open };
      this.node.open = true;
    } else if (!filter && this.forced) {
      this.node.open = this.forced.open;
      this.forced = null;
    }
    show(this.node, !filter || pool.targets.some(filter));
    if (this.node.open) this.#targets();
  }

  #turn(by) {
    this.at += by;
    this.#targets();
  }

  #sortBy(name) {
    const first = name !== "Target"; // whether the greatest comes first
    if (this.sort?.name !== name) this.sort = { name, down: first };
    else this.sort = this.sort.down === first ? { name, down: !first } : null;
    for (const [each, head] of this.columns) attribute(head, "aria-sort", each === this.sort?.name && (this.sort.down ? "descending" : "ascending"));
    this.at = 0;
    this.#targets();
  }

  #targets() {
    if (!this.pool) return;
    const { pool, filter } = this;
    const large = pool.targets.length > FEW;
    let targets = filter ? pool.targets.filter(filter) : pool.targets;
    show(this.states, large);
    show(this.picture, large);
    show(this.hint, large);
    if (large) {
      this.#chips(targets);
      if (this.state) targets = targets.filter((target) => target.state === this.state);
      const rank = Object.fromEntries(STATES.map((state, index) => [state, index]));
      const order = targets.map((target, index) => [rank[target.state], index, target]);
      targets = order.sort((a, b) => a[0] - b[0] || a[1] - b[1]).map((each) => each[2]);
      this.#paint(new Set(targets));
    }
    if (this.sort) targets = sorted(targets, this.sort);
    const pages = Math.max(1, Math.ceil(targets.length / PAGE));
    this.at = Math.max(0, Math.min(this.at, pages - 1));
    const from = large ? this.at * PAGE : 0;
    const shown = large ? targets.slice(from, from + PAGE) : targets;
    show(this.pager, large);
    say(this.counted, targets.length ? `${count(from + 1)} to ${count(from + shown.length)} of ${many(targets.length, "target")}, ${this.sort ? `by ${this.sort.name}` : "the worst first"}` : "No such target");
    this.earlier.disabled = this.at === 0;
    this.later.disabled = this.at >= pages - 1;
    const now = this.page.now();
    keyed(this.rows, shown, (target) => target.id, (target) => this.#row(target), (row, target) => this.#say(row, target, now));
  }

  #row(target) {
    const open = make("button", {
      type: "button", class: "plain name", onclick: () => this.page.explain(target.id), title: "Explain, drain, weight, probe",
    }, shortName(target.id));
    const cell = (kind = "num") => make("td", { class: kind });
    const parts = {
      state: make("span"), reason: make("span", { class: "reason" }), since: cell(), share: cell("num extra"),
      weight: cell("num extra"), flight: cell("num extra"), rate: cell(), errors: cell(), p50: cell("num extra"), p99: cell(),
    };
    const { state, reason, ...cells } = parts;
    const row = make("tr", {}, make("td", {}, state), make("th", { scope: "row" }, open, reason), Object.values(cells));
    row.parts = parts;
    return row;
  }

  #say(row, target, now) {
    const { parts } = row;
    if (parts.state.className !== `state ${target.state}`) parts.state.className = `state ${target.state}`;
    say(parts.state, STATE_WORDS[target.state]);
    say(parts.reason, [target.state === "ready" && target.serves ? "" : target.reason, target.trial].filter(Boolean).join(" · "));
    say(parts.since, age(now - target.since));
    say(parts.share, percent(target.share));
    say(parts.weight, target.configured_weight === null ? target.weight : `${target.weight} (file: ${target.configured_weight})`);
    say(parts.flight, count(target.in_flight));
    say(parts.rate, rate(target.rate));
    say(parts.errors, percent(target.error_rate));
    parts.errors.classList.toggle("bad", target.error_rate > 0);
    say(parts.p50, latency(target.p50));
    say(parts.p99, latency(target.p99));
  }

  // --- many targets ---

  #chips(targets) {
    const counts = new Map();
    for (const target of targets) counts.set(target.state, (counts.get(target.state) || 0) + 1);
    if (this.state && !counts.has(this.state)) this.state = "";
    keyed(this.states, STATES.filter((state) => counts.has(state)), (state) => state,
      (state) => make("button", {
        type: "button", class: "chip",
        onclick: () => {
          this.state = this.state === state ? "" : state;
          this.at = 0;
          this.#targets();
        },
      }, make("span", { class: `state ${state}` })),
      (node, state) => {
        attribute(node, "aria-pressed", String(this.state === state));
        say(node.firstChild, `${count(counts.get(state))} ${STATE_WORDS[state]}`);
      });
    const said = STATES.filter((state) => counts.has(state)).map((state) => `${counts.get(state)} ${STATE_WORDS[state]}`).join(", ");
    attribute(this.picture, "aria-label", `${many(targets.length, "target")}: ${said}`);
  }

  /** One mark for each target, in the order of the file; pale if the filter does not want it. */
  #paint(wanted) {
    const { picture, pool } = this;
    const width = Math.max(CELL, this.body.clientWidth);
    const columns = Math.max(1, Math.floor(width / CELL));
    const rows = Math.ceil(pool.targets.length / columns);
    const scale = window.devicePixelRatio || 1;
    const [w, h] = [columns * CELL, rows * CELL];
    if (picture.width !== Math.round(w * scale) || picture.height !== Math.round(h * scale)) {
      picture.width = Math.round(w * scale);
      picture.height = Math.round(h * scale);
      picture.style.width = `${w}px`;
      picture.style.height = `${h}px`;
    }
    this.columns = columns;
    const style = getComputedStyle(this.body);
    const colour = (name) => style.getPropertyValue(name).trim();
    const colours = {
      ready: colour("--good"), slow_start: colour("--good"), starting: colour("--accent"), unready: colour("--bad"),
      ejected: colour("--bad"), draining: colour("--calm"), drained: colour("--muted"),
    };
    const pen = picture.getContext("2d");
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, w, h);
    pool.targets.forEach((target, index) => {
      const x = (index % columns) * CELL + 1;
      const y = Math.floor(index / columns) * CELL + 1;
      pen.globalAlpha = wanted.has(target) ? 1 : 0.18;
      pen.fillStyle = pen.strokeStyle = colours[target.state];
      mark(pen, target.state, x, y, CELL - 3);
    });
    pen.globalAlpha = 1;
  }

  #watchPicture() {
    const under = (event) => {
      const box = this.picture.getBoundingClientRect();
      const column = Math.floor((event.clientX - box.left) / CELL);
      const row = Math.floor((event.clientY - box.top) / CELL);
      return column < this.columns ? this.pool?.targets[row * this.columns + column] : undefined;
    };
    const rest = "Each mark is a target; the table below has them all.";
    say(this.hint, rest);
    this.picture.addEventListener("pointermove", (event) => {
      const target = under(event);
      say(this.hint, target ? `${shortName(target.id)}: ${STATE_WORDS[target.state]} for ${age(this.page.now() - target.since)}. ${target.reason}` : rest);
    });
    this.picture.addEventListener("pointerleave", () => say(this.hint, rest));
    this.picture.addEventListener("click", (event) => {
      const target = under(event);
      if (target) this.page.explain(target.id);
    });
    new ResizeObserver(() => { if (this.node.open && this.pool && !this.picture.hidden) this.#targets(); }).observe(this.node);
  }
}

/** The shape of a state, as in the style sheet. */
function mark(pen, state, x, y, size) {
  const end = size;
  pen.lineWidth = 1.8;
  pen.beginPath();
  if (state === "ready") {
    pen.rect(x, y, end, end);
    pen.fill();
  } else if (state === "slow_start") {
    pen.rect(x, y + end / 2, end, end / 2);
    pen.fill();
    pen.strokeRect(x + 0.9, y + 0.9, end - 1.8, end - 1.8);
  } else if (state === "unready") {
    pen.moveTo(x, y);
    pen.lineTo(x + end, y + end);
    pen.moveTo(x + end, y);
    pen.lineTo(x, y + end);
    pen.lineWidth = 2.6;
    pen.stroke();
  } else if (state === "ejected" || state === "draining") {
    const [tip, base] = state === "ejected" ? [y, y + end] : [y + end, y];
    pen.moveTo(x + end / 2, tip);
    pen.lineTo(x + end, base);
    pen.lineTo(x, base);
    pen.fill();
  } else {
    pen.strokeRect(x + 0.9, y + 0.9, end - 1.8, end - 1.8);
  }
}
