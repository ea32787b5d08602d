// A text area with line numbers, marks at lines, and a history of its own that changes from outside are part of.

import { attribute, make, say } from "./dom.js";

const TOGETHER = 700; // milliseconds within which typing is one step of the history
const STEPS = 200;

export class Editor {
  /** `onChange(text)` hears of every change; `onCaret(line, column)` where the caret is. */
  constructor({ label, describedBy, onChange, onCaret }) {
    this.onChange = onChange;
    this.onCaret = onCaret;
    this.numbers = make("div", { class: "numbers" });
    this.dots = make("div", { class: "dots" });
    this.gutter = make("div", { class: "gutter", "aria-hidden": "true" }, this.dots, this.numbers);
    this.under = make("div", { class: "under", "aria-hidden": "true" });
    this.area = make("textarea", {
      id: "yaml", class: "yaml", "aria-label": label, "aria-describedby": describedBy, spellcheck: "false",
      autocapitalize: "off", autocomplete: "off", autocorrect: "off", wrap: "off",
    });
    this.node = make("div", { class: "editor" }, this.gutter, make("div", { class: "pane" }, this.under, this.area));
    this.lines = 0;
    this.history = [];
    this.step = -1;
    this.typed = 0;
    this.area.addEventListener("input", () => {
      this.#remember(Date.now() - this.typed < TOGETHER);
      this.typed = Date.now();
      this.#changed();
    });
    this.area.addEventListener("beforeinput", (event) => {
      if (event.inputType === "historyUndo" || event.inputType === "historyRedo") {
        event.preventDefault();
        this.move(event.inputType === "historyUndo" ? -1 : 1);
      }
    });
    this.area.addEventListener("keydown", (event) => this.#key(event));
    this.area.addEventListener("scroll", () => this.#follow(), { passive: true });
    for (const name of ["keyup", "click", "focus", "select"]) this.area.addEventListener(name, () => this.#caret());
  }

  get text() {
    return this.area.value;
  }

  get canUndo() {
    return this.step > 0;
  }

  get canRedo() {
    return this.step < this.history.length - 1;
  }

  /** Another text, as a step of the history; with `fresh` the history begins anew. Shows the first line that changed. */
  replace(text, { fresh = false } = {}) {
    const before = this.text;
    if (!fresh && text === before) return;
    const top = this.area.scrollTop;
    this.area.value = text;
    this.area.scrollTop = top;
    if (fresh) {
      this.area.setSelectionRange(0, 0);
      this.history = [];
      this.step = -1;
    }
    this.typed = 0;
    this.#remember(false);
    this.#changed();
    if (!fresh) this.flash(...changedLines(before, text));
  }

  /** One step back (-1) or forth (1). */
  move(by) {
    const wanted = this.history[this.step + by];
    if (!wanted) return;
    const before = this.text;
    this.step += by;
    this.typed = 0;
    this.area.value = wanted.text;
    this.area.setSelectionRange(wanted.start, wanted.end);
    this.#changed();
    this.flash(...changedLines(before, wanted.text));
  }

  /** Marks at lines: [{line, column, width, kind, title}]. */
  mark(problems) {
    this.under.replaceChildren();
    this.dots.replaceChildren();
    for (const { line, column, width, kind, title } of problems.slice(0, 200)) {
      if (!line) continue;
      const row = make("div", { class: `mark ${kind}` });
      row.style.top = `calc(${line - 1} * var(--row))`;
      const under = make("span");
      under.style.left = `${Math.max(0, column - 1)}ch`;
      under.style.width = `${Math.max(1, width)}ch`;
      row.append(under);
      this.under.append(row);
      const dot = make("div", { class: `dot ${kind}`, title, onclick: () => this.show(line, column, width) }, kind === "error" ? "✕" : "!");
      dot.style.top = `calc(${line - 1} * var(--row))`;
      this.dots.append(dot);
    }
    attribute(this.area, "aria-invalid", problems.some((each) => each.kind === "error") ? "true" : null);
  }

  /** Put the caret to a place, select `width` characters there, and show it. */
  show(line, column = 1, width = 0) {
    const rows = this.text.split("\n");
    let at = 0;
    for (let number = 0; number < Math.min(line, rows.length) - 1; number += 1) at += rows[number].length + 1;
    const row = rows[Math.min(line, rows.length) - 1] || "";
    const start = at + Math.min(column - 1, row.length);
    this.area.focus();
    this.area.setSelectionRange(start, Math.min(start + width, at + row.length));
    this.reveal(line);
    this.#caret();
  }

  /** Scroll until a line is in sight. */
  reveal(line) {
    const row = this.#rowHeight();
    const top = (line - 1) * row;
    const { scrollTop, clientHeight } = this.area;
    if (top < scrollTop + row || top > scrollTop + clientHeight - 3 * row) this.area.scrollTop = Math.max(0, top - clientHeight / 3);
  }

  /** Show lines for a moment as changed. */
  flash(line, count) {
    if (!line) return;
    this.reveal(line);
    const row = make("div", { class: "mark changed" });
    row.style.top = `calc(${line - 1} * var(--row))`;
    row.style.height = `calc(${Math.max(1, count)} * var(--row))`;
    this.under.append(row);
    setTimeout(() => row.remove(), 1600);
  }

  #key(event) {
    const command = event.ctrlKey || event.metaKey;
    if (command && !event.altKey && ["z", "y"].includes(event.key.toLowerCase())) {
      event.preventDefault();
      this.move(event.key.toLowerCase() === "z" && !event.shiftKey ? -1 : 1);
    } else if (event.key === "Enter" && !command && !event.shiftKey && !event.isComposing) {
      const start = this.text.lastIndexOf("\n", this.area.selectionStart - 1) + 1;
      const line = this.text.slice(start, this.area.selectionStart);
      const indent = line.match(/^ *(?:- )?/)[0].replace("-", " ") + (/:\s*$/.test(line) ? "  " : "");
      if (!indent) return;
      event.preventDefault();
      document.execCommand("insertText", false, `\n${indent}`); // the way that input events, and screen readers, hear of
    }
  }

  #remember(together) {
    const { value, selectionStart, selectionEnd } = this.area;
    const step = { text: value, start: selectionStart, end: selectionEnd };
    this.history.length = this.step + 1;
    if (together && this.history.length > 1) this.history[this.step] = step;
    else this.history.push(step);
    if (this.history.length > STEPS) this.history.shift();
    this.step = this.history.length - 1;
  }

  #changed() {
    const count = this.text.split("\n").length;
    if (count !== this.lines) {
      this.lines = count;
      say(this.numbers, Array.from({ length: count }, (_, at) => at + 1).join("\n"));
    }
    this.#follow();
    this.#caret();
    this.onChange(this.text);
  }

  #follow() {
    const { scrollTop, scrollLeft } = this.area;
    this.gutter.style.setProperty("--scrolled", `${-scrollTop}px`);
    this.under.style.transform = `translate(${-scrollLeft}px, ${-scrollTop}px)`;
  }

  #caret() {
    const before = this.text.slice(0, this.area.selectionStart);
    this.onCaret(before.split("\n").length, before.length - before.lastIndexOf("\n"));
  }

  #rowHeight() {
    return parseFloat(getComputedStyle(this.area).lineHeight) || 20;
  }
}

/** The first line of `after` that differs from `before`, and how many do. */
function changedLines(before, after) {
  const [old, now] = [before.split("\n"), after.split("\n")];
  let first = 0;
  while (first < now.length && first < old.length && old[first] === now[first]) first += 1;
  let last = 0;
  while (last < Math.min(old.length, now.length) - first && old[old.length - 1 - last] === now[now.length - 1 - last]) last += 1;
  return [Math.min(first + 1, now.length), Math.max(1, now.length - last - first)];
}
