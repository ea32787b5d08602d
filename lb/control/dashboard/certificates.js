// The certificates of listeners: what each name gets, until when, and what could not be taken.

import { Problem, Unreachable, call, now } from "./api.js";
import { attribute, keyed, make, say, show } from "./dom.js";
import { age, clock, many } from "./words.js";

const EVERY = 30; // seconds between two looks, unless the configuration has changed
const SOON = 14 * 86400; // seconds before its end from which a certificate is worth a look
const MOST = 50; // names that are shown

export class CertificatesView {
  #looked = 0;
  #seen = "";
  #looking = false;

  constructor() {
    this.rows = make("tbody");
    this.more = make("p", { class: "muted", hidden: true });
    this.summary = make("span", { class: "muted" });
    this.node = make("section", { class: "card certificates", "aria-labelledby": "certificates", hidden: true },
      make("header", {}, make("h3", { id: "certificates" }, "Certificates"), this.summary),
      make("div", { class: "body" },
        make("table", {}, make("caption", { class: "hidden-text" }, "What each host name gets, the first end first"),
          make("thead", {}, make("tr", {}, ["Name", "Ends", "Keys", "From", "Note"].map((name) => make("th", { scope: "col" }, name)))),
          this.rows),
        this.more));
  }

  /** Ask when it is time, or when the configuration is another one. */
  async update(status) {
    const seen = `${status.started_at} ${status.config.loaded_at} ${status.config.last_error}`;
    if (this.#looking || (seen === this.#seen && now() - this.#looked < EVERY)) return;
    this.#looking = true;
    try {
      this.#show(await call("/api/v1/certificates"));
      this.#seen = seen;
      this.#looked = now();
    } catch (error) {
      if (!(error instanceof Problem || error instanceof Unreachable)) throw error;
    } finally {
      this.#looking = false;
    }
  }

  #show(names) {
    show(this.node, names.length > 0);
    const sorted = [...names].sort((one, other) => (one.not_after ?? 0) - (other.not_after ?? 0));
    const late = sorted.filter((each) => (each.not_after ?? 0) - now() < SOON).length;
    say(this.summary, `${many(names.length, "name")}${late ? `, ${late} of them end soon` : ""}`);
    keyed(this.rows, sorted.slice(0, MOST), (each) => `${each.listener} ${each.name}`,
      () => make("tr", {}, make("th", { scope: "row" }), make("td"), make("td"), make("td"), make("td")),
      (row, each) => this.#row(row, each));
    show(this.more, names.length > MOST);
    say(this.more, `${names.length - MOST} further names end later: lb certificates`);
  }

  #row(row, each) {
    const [name, ends, keys, from, note] = row.children;
    const certificates = each.certificates ?? [];
    const left = (each.not_after ?? 0) - now();
    const broken = certificates.find((one) => one.kept);
    const fault = certificates.find((one) => one.chain_fault);
    say(name, each.name);
    say(ends, certificates.length === 0 ? "✕ waited for" : left <= 0 ? `✕ ended ${age(-left)} ago` : `${left < SOON ? "▲ " : ""}in ${age(left)}`);
    attribute(ends, "title", each.not_after ? clock(each.not_after) : null);
    say(keys, certificates.map((one) => one.algorithm).join(", "));
    say(from, [...new Set(certificates.map((one) => one.source))].join(", "));
    say(note, broken ? `✕ not taken: ${broken.failure}` : each.renewal?.failure ? `✕ not renewed: ${each.renewal.failure}` : fault ? `▲ chain: ${fault.chain_fault}` : "");
  }
}
