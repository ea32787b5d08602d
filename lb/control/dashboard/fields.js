// Fields of a form, made from the JSON Schema of the file: label, input, help, default, and what is wrong with the value.

import { attribute, make, say, show } from "./dom.js";
import { capital } from "./words.js";

const PAUSE = 350; // milliseconds of quiet after which what is typed is taken
const UNITS = { duration: "ms, s, m, h", size: "KiB, MiB", percent: "%" };
let number = 0;

/** What the schema says of a setting, without the references to the environment that may stand anywhere. */
export function describe(schema, section, key) {
  let of = schema.$defs[section]?.properties?.[key] ?? schema.properties[key] ?? {};
  const { description = "", examples = [] } = of;
  const options = (of.anyOf || [of]).filter((each) => each["x-kind"] !== "reference");
  const unit = options.find((each) => each["x-kind"]);
  const types = new Set(options.map((each) => (each.const !== undefined ? "integer" : each.type)));
  const chosen = options.find((each) => each.enum);
  let kind = "text";
  if (chosen) kind = "choice";
  else if (types.has("boolean") && !types.has("string")) kind = "flag";
  else if (unit) kind = unit["x-kind"];
  else if (options.every((each) => each.type === "array")) kind = "list";
  else if (options.some((each) => each.type === "object" && each.additionalProperties)) kind = "mapping";
  else if (types.has("integer") && !types.has("string")) kind = "whole";
  else if (types.has("number") && !types.has("string")) kind = "number";
  return {
    kind, description, examples, default: of.default, choices: chosen?.enum || [],
    numeric: types.has("integer") || types.has("number"), many: types.has("array"),
  };
}

/** The keys of a section. */
export function keysOf(schema, section) {
  return Object.keys(schema.$defs[section].properties);
}

/** One field. `page` gives values and problems, and takes changes. */
export class Field {
  constructor(page, path, said, { label, plain = false } = {}) {
    this.page = page;
    this.path = path;
    this.said = said;
    this.timer = 0;
    this.typing = false;
    this.shown = undefined;
    const id = `field-${++number}`;
    const [first, rest] = sentences(said.description);
    const unit = UNITS[said.kind];
    this.label = label;
    const fallback = said.default === undefined ? "" : written(said.default);
    this.wrong = make("span", { class: "wrong", id: `${id}-wrong`, role: "status" });
    this.more = make("span", { id: `${id}-more`, hidden: true }, " ", words(rest));
    const toggle = rest && make("button", {
      type: "button", class: "quiet more", "aria-expanded": "false", "aria-controls": `${id}-more`,
      "aria-label": `More about ${label}`, onclick: () => {
        show(this.more, this.more.hidden);
        attribute(toggle, "aria-expanded", String(!this.more.hidden));
        say(toggle, this.more.hidden ? "more" : "less");
      },
    }, "more");
    this.input = this.#input(id, fallback);
    attribute(this.input, "aria-describedby", `${id}-wrong${plain ? "" : ` ${id}-hint`}`);
    this.reset = make("button", { type: "button", class: "quiet reset", hidden: true, "aria-label": `${label}: back to the default`, title: "Back to the default", onclick: () => this.#set(null) }, "✕");
    this.node = make("div", { class: `field is-${said.kind}` },
      make("label", { for: id, class: plain ? "hidden-text" : null }, label, unit && " ", unit && make("span", { class: "unit" }, unit)),
      make("div", { class: "value" }, this.input, this.reset),
      this.wrong,
      !plain && make("span", { class: "hint", id: `${id}-hint` }, words(first), this.more, toggle && " ", toggle));
  }

  /** Show what the text says. What is being typed is left alone. */
  update(path = this.path) {
    this.path = path;
    const value = this.page.value(path);
    const odd = value !== undefined && value !== null && typeof value === "object" && !fits(value, this.said);
    const text = odd ? "" : shown(value, this.said);
    this.input.disabled = odd || !this.page.readable;
    if (text !== this.shown && !this.typing && !(this.input === document.activeElement && this.input.value === text)) {
      this.#show(text);
    }
    this.shown = text;
    show(this.reset, value !== undefined && !odd && !this.required);
    const found = odd ? ["Written in another way: change it in the YAML."] : this.page.problemsAt(path).map((each) => each.message);
    attribute(this.input, "aria-invalid", found.length && !odd ? "true" : null);
    say(this.wrong, found[0] || "");
  }

  /** Another label than the key. */
  rename(label) {
    this.node.querySelector("label").firstChild.data = label;
    for (const button of this.node.querySelectorAll("button")) button.setAttribute("aria-label", button.getAttribute("aria-label").replace(this.label, label));
    this.label = label;
  }

  /** Choose among these names, which the text itself gives; `none` says what leaving it out means. */
  offer(names, none = "") {
    if (this.input.tagName !== "SELECT") {
      const select = make("select", { id: this.input.id, "aria-describedby": this.input.getAttribute("aria-describedby"), onchange: () => this.#take() });
      this.input.replaceWith(select);
      this.input = select;
    }
    const key = [none, ...names].join("\n");
    if (this.offered === key) return;
    this.offered = key;
    this.input.replaceChildren(make("option", { value: "" }, none), ...names.map((each) => make("option", { value: each }, each)));
    this.shown = undefined;
  }

  #input(id, fallback) {
    const { kind, choices, examples } = this.said;
    const take = () => this.#take();
    const soon = () => {
      clearTimeout(this.timer);
      this.typing = true;
      // Who has emptied a field is about to type: that takes the line away only when the field is left.
      if (this.input.value.trim()) this.timer = setTimeout(take, PAUSE);
    };
    if (kind === "choice" || kind === "flag") {
      const options = kind === "flag" ? ["true", "false"] : choices;
      const name = (value) => (kind === "flag" ? { true: "yes", false: "no" }[value] : value);
      return make("select", { id, onchange: take },
        make("option", { value: "" }, fallback ? `${name(fallback)} (default)` : "(default)"),
        options.map((value) => make("option", { value }, name(value))));
    }
    if (kind === "mapping") return make("textarea", { id, rows: 2, placeholder: "Name: value", spellcheck: "false", oninput: soon, onchange: take });
    const placeholder = fallback || (examples.length && kind === "text" ? `such as ${examples[0]}` : kind === "list" ? "with commas between them" : "");
    return make("input", {
      id, type: "text", placeholder, spellcheck: "false", autocapitalize: "off", autocomplete: "off",
      inputmode: kind === "whole" || kind === "number" ? "decimal" : null, oninput: soon, onchange: take,
    });
  }

  #show(text) {
    if (this.input.tagName === "SELECT" && text && ![...this.input.options].some((each) => each.value === text)) {
      this.input.append(make("option", { value: text }, text)); // not allowed, or a reference; it is what stands there
    }
    this.input.value = text;
  }

  #take() {
    clearTimeout(this.timer);
    this.typing = false;
    const text = this.input.value.trim();
    if (text === (this.shown ?? "")) return;
    this.#set(text === "" && !this.required ? null : meant(text, this.said));
  }

  #set(value) {
    if (value === null) this.#show("");
    this.shown = value === null ? "" : shown(value, this.said);
    this.page.change(this.path, value);
  }
}

/** A group of fields that belong to one section of the file. */
export function fieldsOf(page, path, section, keys) {
  return keys.map((key) => {
    const said = describe(page.schema, section, key);
    return new Field(page, [...path, key], said, { label: labelOf(key) });
  });
}

/** `fast_interval` as people write it: Fast interval. */
export function labelOf(key) {
  const text = String(key).replaceAll("_", " ");
  return capital(text.replace(/\btls\b/, "TLS").replace(/\burl\b/, "URL").replace(/\bgrpc\b/, "gRPC").replace(/\b1xx\b/, "1xx"));
}

/** Text with `code` in it, as nodes. */
export function words(text) {
  return text.split(/`([^`]*)`/).map((part, at) => (at % 2 ? make("code", {}, part) : part));
}

/** The first sentence, and the others. */
function sentences(text) {
  const end = text.search(/[.;] (?=[A-Z`(])/);
  if (end < 0 || text.length < 90) return [text, ""];
  return [text.slice(0, end + 1), text.slice(end + 2)];
}

function fits(value, said) {
  // A list of words, such as a command's, is not a text with commas in it; one of numbers and ranges is.
  if (Array.isArray(value)) return said.many && value.every((each) => typeof each === "string" && (said.kind === "list" || /^[\d-]+$/.test(each)));
  return said.kind === "mapping" && Object.values(value).every((each) => typeof each === "string");
}

function shown(value, said) {
  if (value === undefined || value === null) return "";
  if (Array.isArray(value)) return value.join(", ");
  if (typeof value === "object") return said.kind === "mapping" ? Object.entries(value).map(([key, one]) => `${key}: ${one}`).join("\n") : "";
  return String(value);
}

/** A default as it is written. */
function written(value) {
  return Array.isArray(value) ? value.join(", ") : typeof value === "object" ? "" : String(value);
}

/** What is typed, as the file's kind of value. */
function meant(text, said) {
  if (said.kind === "flag" && ["true", "false"].includes(text)) return text === "true";
  if (said.kind === "list") return text.split(/[\s,]+/).filter(Boolean).map((each) => (/^\d{1,15}$/.test(each) ? Number(each) : each));
  if (said.kind === "mapping") {
    const pairs = text.split("\n").map((line) => line.split(/:\s*(.*)/s)).filter(([key]) => key.trim());
    return Object.fromEntries(pairs.map(([key, value]) => [key.trim(), (value ?? "").trim()]));
  }
  if (said.numeric && /^\d{1,15}$/.test(text)) return Number(text);
  if (said.kind === "number" && /^\d+\.\d+$/.test(text)) return Number(text);
  return text;
}
