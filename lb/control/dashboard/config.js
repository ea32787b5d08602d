// The configuration page: forms and YAML of one text, what is wrong with it, what it would change, and applying it.
// The text is the truth: forms send their change to the server, which edits the text in place, and show what it says.

import { Problem, Unreachable, call, send } from "./api.js";
import { confirm, refusal } from "./confirm.js";
import { attribute, keyed, make, say, show } from "./dom.js";
import { Editor } from "./editor.js";
import { words } from "./fields.js";
import { CommonForm, ServiceForm, newThing } from "./sections.js";
import { announce, connected, toast } from "./shell.js";
import { many } from "./words.js";

const QUIET = 200; // milliseconds without typing after which the text is looked at
const LOOK_EVERY = 5000; // milliseconds between two looks at whether what runs is still the base
const LONGEST = 2000; // lines of a difference that are shown
const SIGNS = { add: ["+", "added"], drain: ["-", "leaves"], change: ["~", "changes"], restart: ["!", "after a restart"] };

const byId = (id) => document.getElementById(id);
const main = byId("main");

let base = { text: "", etag: "" }; // what runs, as far as this page knows
let draft = null; // what the server says of `draftOf`
let draftOf = "";
let runningFigures = [];
let chosen = null; // the service whose form is shown; "" for what is common
let form = null;
let asked = 0;
let timer = 0;
let waiting = null; // aborts the question under way
let told = "";
let overtaken = false;

const editor = new Editor({ label: "Configuration in YAML", describedBy: "at-caret", onChange: changed, onCaret: atCaret });

/** What the forms see of the page. */
const page = {
  schema: null,
  get readable() {
    return Boolean(draft?.settings);
  },
  get valid() {
    return Boolean(draft?.ok);
  },
  value(path) {
    let value = draft?.settings;
    for (const step of path) {
      if (value === null || typeof value !== "object" || (Array.isArray(value) !== (typeof step === "number"))) return undefined;
      value = Object.hasOwn(value, step) ? value[step] : undefined;
    }
    return value ?? undefined;
  },
  problemsAt(path) {
    const place = dotted(path);
    const short = dotted(path.slice(2)); // of the short form's one service
    return (draft?.problems || []).filter((each) => each.path === place || (each.path === short && path[1] === "default"));
  },
  figures: (name) => draft?.services.find((each) => each.name === name),
  runningFigures: (name) => runningFigures.find((each) => each.name === name),
  change,
  remove(path, what) {
    change(path, null);
    toast(`${what} removed from the text; Undo brings it back`);
  },
  find(path) {
    const line = lineOf(path);
    if (!line) return;
    look("text");
    editor.show(line);
  },
};

function dotted(path) {
  return path.reduce((text, step) => (typeof step === "number" ? `${text}[${step}]` : text ? `${text}.${step}` : step), "");
}

/** The line where a key of the path begins, as far as indentation tells. */
function lineOf(path) {
  const lines = editor.text.split("\n");
  let from = 0;
  let indent = -1;
  for (const step of path) {
    const key = new RegExp(`^( *)(?:- )?["']?${String(step).replace(/[.*+?^${}()|[\]\\]/g, "\\$&")}["']?\\s*:`);
    let found = -1;
    for (let at = from; at < lines.length; at += 1) {
      const match = lines[at].match(key);
      if (match && match[1].length > indent) {
        found = at;
        indent = match[1].length;
        break;
      }
    }
    if (found < 0) return from;
    from = found + 1;
  }
  return from;
}

// --- the text, and what the server says of it -----------------------------------------------------------------------

function changed() {
  byId("undo").disabled = !editor.canUndo;
  byId("redo").disabled = !editor.canRedo;
  soon(QUIET);
}

function soon(delay) {
  clearTimeout(timer);
  asked += 1; // an answer about an older text is of no use any more
  verdict();
  timer = setTimeout(ask, delay);
}

async function ask() {
  const text = editor.text;
  const number = (asked += 1);
  waiting?.abort();
  waiting = new AbortController();
  try {
    const said = await call("/api/v1/config/draft", { method: "POST", body: { text }, signal: waiting.signal, patience: 30_000 });
    if (number !== asked) return;
    draft = said;
    draftOf = text;
    connected(true);
    render();
  } catch (error) {
    if (number !== asked) return;
    trouble(error);
    if (error instanceof Unreachable) timer = setTimeout(ask, 2000);
  }
}

function trouble(error) {
  if (error instanceof Unreachable) connected(false, error.message);
  else if (error instanceof Problem) toast(`${error.title}: ${error.message}`, "bad");
  else throw error;
}

/** Changes from the forms, one after the other; of several to one setting the last one counts. */
const wanted = new Map();
let editing = false;
let removed = {};

async function change(path, value) {
  wanted.set(JSON.stringify(path), [path, value]);
  if (editing) return;
  editing = true;
  try {
    while (wanted.size) {
      const [key, [place, to]] = wanted.entries().next().value;
      wanted.delete(key);
      const now = editor.text;
      // A setting that was taken out just now and gets another value: its line comes back, with its comment.
      const text = to !== null && removed.key === key && removed.after === now ? removed.before : now;
      const answer = await call("/api/v1/config/edit", { method: "POST", body: { text, path: place, value: to } });
      if (editor.text !== now) {
        if (!wanted.has(key)) wanted.set(key, [place, to]); // somebody types as well: once more, on that
        continue;
      }
      if (answer.written_out) {
        toast("The short form has no room for this: the file is written out as a service. Undo brings the short form back");
      }
      removed = to === null ? { key, before: text, after: answer.text } : {};
      editor.replace(answer.text);
      message("");
      if (!wanted.size) soon(0);
    }
  } catch (error) {
    wanted.clear();
    if (error instanceof Problem) message(`✕ ${error.title}: ${error.message}.`);
    else trouble(error);
    soon(0);
  } finally {
    editing = false;
  }
}

function message(text) {
  say(byId("form-message"), text);
  show(byId("form-message"), Boolean(text));
}

// --- what is shown ---------------------------------------------------------------------------------------------------

function render() {
  verdict();
  const found = [
    ...draft.problems.map((each) => ({ ...each, kind: "error" })),
    ...draft.warnings.map((each) => ({ ...each, kind: "warning" })),
  ];
  for (const each of found) each.title = each.hint ? `${each.message}\n${each.hint}` : each.message;
  editor.mark(found);
  problems(found);
  atCaret(...caret);
  plan();
  difference();
  renderForms();
  const summary = draft.ok ? "The text is valid" : many(draft.problems.length, "error");
  if (told && summary !== told) announce(summary);
  told = summary;
}

function verdict() {
  const place = byId("verdict");
  const current = draft && draftOf === editor.text;
  const errors = draft?.problems.length || 0;
  const dirty = editor.text !== base.text;
  let [text, kind] = ["checking…", ""];
  if (current && errors) [text, kind] = [`✕ ${many(errors, "error")}`, "bad"];
  else if (current && !dirty) [text, kind] = ["✓ what runs", "on"];
  else if (current) [text, kind] = [`✓ valid, ${draft.plan.length ? many(draft.plan.length, "change") : "changes nothing"}`, draft.warnings.length ? "warn" : "on"];
  if (current && draft.warnings.length) text += `, ${many(draft.warnings.length, "warning")}`;
  say(place, text);
  place.className = `tag ${kind}`;
  byId("apply").disabled = !(current && draft.ok && dirty);
  byId("revert").disabled = !dirty;
}

let caret = [1, 1];
function atCaret(line, column) {
  caret = [line, column];
  say(byId("place"), `line ${line}, column ${column}`);
  const here = [...(draft?.problems || []), ...(draft?.warnings || [])].filter((each) => each.line === line);
  say(byId("at-caret"), draftOf === editor.text ? here.map((each) => `${each.message}. ${each.hints[0] ?? ""}`.trim()).join(" · ") : "");
}

function problems(found) {
  const place = byId("problems");
  if (!found.length) {
    place.replaceChildren();
    return;
  }
  const title = [draft.problems.length && many(draft.problems.length, "error"), draft.warnings.length && many(draft.warnings.length, "warning")].filter(Boolean).join(", ");
  place.replaceChildren(
    make("h4", { id: "problems-title" }, title),
    make("ul", { class: "problems", "aria-labelledby": "problems-title" }, found.slice(0, 100).map((each) => make("li", { class: each.kind },
      make("button", { type: "button", class: "plain", onclick: () => { look("text"); editor.show(each.line || 1, each.column, each.width); } },
        make("span", { class: "where" }, `${each.kind === "error" ? "✕" : "!"} line ${each.line || "–"}`), make("span", {}, words(each.message), each.hint && make("span", { class: "hint" }, words(each.hint))))))));
}

function plan() {
  const place = byId("plan");
  if (!draft.ok) {
    place.replaceChildren(make("p", { class: "muted" }, "Nothing: a text with errors is refused whole."));
    return;
  }
  place.replaceChildren(...planned());
}

/** The plan, in words. */
function planned() {
  if (!draft.plan.length) return [make("p", { class: "muted" }, editor.text === base.text ? "Nothing: this is what runs." : "The file is replaced; what runs stays as it is.")];
  return [
    make("p", { class: "summary" }, draft.summary || many(draft.plan.length, "change")),
    make("ul", { class: "plan" }, grouped(draft.plan).slice(0, 300).map(({ kind, subject, text, names }) => {
      const [sign, word] = SIGNS[kind];
      return make("li", { class: kind }, make("span", { class: "sign", "aria-hidden": "true" }, sign), make("span", { class: "hidden-text" }, `${word}: `),
        make("div", {}, make("b", {}, subject), text && `: ${text}`,
          names.length > 1 && make("details", {}, make("summary", {}, "which"), names.slice(0, 100).join(", "), names.length > 100 && ` and ${names.length - 100} more`)));
    })),
    draft.plan.length > 300 && make("p", { class: "muted" }, `and ${draft.plan.length - 300} more`),
  ].filter(Boolean);
}

/** The changes of the plan; targets of one pool to which the same happens are one. */
function grouped(changes) {
  const found = new Map();
  for (const change of changes) {
    const target = change.target && (change.kind === "add" || change.kind === "drain");
    const place = `${change.service}/${change.pool}`;
    const key = target ? `${change.kind} ${place} ${change.text}` : found.size;
    if (!found.has(key)) found.set(key, { kind: change.kind, subject: target ? place : change.subject, change, text: change.text, names: [] });
    if (target) found.get(key).names.push(change.target.slice(place.length + 1));
  }
  for (const group of found.values()) {
    const count = group.names.length;
    if (!count) continue;
    const what = group.kind === "drain" ? (count > 1 ? "drain" : "drains") : count > 1 ? "are added" : "is added";
    group.text = `${count > 1 ? many(count, "target") : group.names[0]} ${what}: ${(count > 1 && group.change.of_many) || group.text}`;
  }
  return [...found.values()];
}

function difference() {
  const place = byId("difference");
  const lines = draft.difference;
  if (!lines.length) {
    place.replaceChildren(make("p", { class: "muted" }, "None."));
    return;
  }
  const width = String(editor.lines).length;
  const table = make("div", { class: "diff", tabindex: "0", role: "group", "aria-labelledby": "difference-title" }, lines.slice(0, LONGEST).map((line) => {
    const kind = { "+": "add", "-": "gone", "…": "skip" }[line.sign] || "same";
    const said = { add: "added: ", gone: "removed: " }[kind];
    const text = kind === "skip" ? "⋯" : `${String(line.new || line.old).padStart(width)} ${line.sign} ${line.text}`;
    return make("div", { class: kind }, said && make("span", { class: "hidden-text" }, said), text);
  }));
  place.replaceChildren(table);
  if (lines.length > LONGEST) place.append(make("p", { class: "muted" }, `and ${lines.length - LONGEST} more lines`));
}

// --- forms -----------------------------------------------------------------------------------------------------------

const choice = make("div", { class: "choice", role: "group", "aria-label": "What the form is about" });
const place = make("div", { class: "form-place" });
const unreadable = make("p", { class: "message warn", hidden: true });
const newService = newThing(page, {
  title: "Add a service", inputs: [["Name", "cart"], ["Pool", "blue"], ["First target", "http://127.0.0.1:5001"]],
  taken: ([name]) => page.value(["services", name]) !== undefined && `there is a service ${name} already`,
  add: ([name, pool, url]) => {
    chosen = name;
    change(["services", name], { pools: { [pool]: { targets: [url] } } });
  },
});
byId("forms").append(choice, unreadable, place, newService);

function renderForms() {
  const services = page.readable ? Object.keys(page.value(["services"]) || {}) : null;
  show(unreadable, !services);
  if (!services) {
    say(unreadable, `The forms show the last text that could be read: ${draft.unreadable}.`);
    attribute(place, "inert", "");
    return;
  }
  attribute(place, "inert", null);
  if (chosen === null) chosen = decodeURIComponent(location.hash.slice(1)) || services[0] || "";
  if (chosen && !services.includes(chosen) && !wanted.size) chosen = services[0] ?? "";
  choose(services);
  if (!form || form.of !== chosen) {
    form = chosen ? new ServiceForm(page, chosen) : new CommonForm(page);
    form.of = chosen;
    place.replaceChildren(form.node);
  }
  form.update();
  for (const part of place.querySelectorAll("details.section")) {
    attribute(part, "data-wrong", part.querySelector("[aria-invalid=true]") ? "" : null);
    const set = part.querySelectorAll(".reset:not([hidden])").length;
    attribute(part.firstElementChild, "data-set", set && !part.querySelector("table") ? `${set} set` : null);
  }
}

function choose(services) {
  const pick = (name) => {
    chosen = name;
    history.replaceState(null, "", name ? `#${encodeURIComponent(name)}` : location.pathname);
    renderForms();
  };
  if (services.length <= 8) {
    choice.select?.remove();
    choice.select = null;
    keyed(choice, [...services, ""], (name) => name || " ", (name) => make("button", { type: "button", onclick: () => pick(name) }, name || "Listeners, routes…"),
      (node, name) => attribute(node, "aria-pressed", String(name === chosen)));
    return;
  }
  if (!choice.select) {
    choice.replaceChildren();
    choice.keyed = undefined;
    choice.select = make("select", { "aria-label": "Service", onchange: () => pick(choice.select.value) });
    choice.append(choice.select);
  }
  const names = services.join("\n");
  if (choice.names !== names) {
    choice.names = names;
    choice.select.replaceChildren(...services.map((name) => make("option", { value: name }, name)), make("option", { value: "" }, "Listeners, routes…"));
  }
  choice.select.value = chosen;
}

// --- what runs: loading, applying, conflicts --------------------------------------------------------------------------

async function running() {
  const response = await send("/api/v1/config");
  return { text: (await response.json()).text, etag: response.headers.get("ETag") || "" };
}

/** Of an ETag, what stands for the text alone: the rest grows with every switch and drain. */
function mark(etag) {
  return etag.replace(/^W\//, "").replaceAll('"', "").replace(/^\d+-/, "").replace(/-?gzip$/, "");
}

async function watch() {
  if (document.hidden || document.querySelector("dialog[open]")) return; // an order hears of it by itself
  try {
    const response = await send("/api/v1/config", { method: "HEAD" });
    connected(true);
    const etag = response.headers.get("ETag") || "";
    if (base.etag && mark(etag) !== mark(base.etag) && !overtaken) await behind();
  } catch (error) {
    if (error instanceof Unreachable) connected(false, error.message);
  }
}

/** What runs is another text than the base. */
async function behind(detail = "") {
  if (editor.text === base.text) {
    base = await running();
    editor.replace(base.text);
    toast("Somebody has changed the configuration; this is the new one");
    await keepFigures();
    return;
  }
  overtaken = true;
  const place = byId("overtaken");
  place.replaceChildren(
    make("strong", {}, "! Somebody else has changed the configuration since you began"),
    detail && make("p", {}, `${detail}.`),
    make("p", {}, "Yours would undo that. Bring your changes into what runs now, look at the difference, then apply."),
    make("div", { class: "row" },
      make("button", { type: "button", class: "primary", onclick: () => rebase(true) }, "Merge my changes"),
      make("button", { type: "button", class: "danger", onclick: () => rebase(false) }, "Discard mine, load theirs")));
  show(place, true);
  place.scrollIntoView({ block: "nearest" });
}

async function rebase(merging) {
  try {
    const now = await running();
    let conflicts = 0;
    let text = now.text;
    if (merging) {
      const merged = await call("/api/v1/config/merge", { method: "POST", body: { base: base.text, text: editor.text } });
      ({ text, conflicts } = merged);
    }
    base = now;
    overtaken = false;
    show(byId("overtaken"), false);
    editor.replace(text);
    soon(0);
    await keepFigures();
    byId("yaml").focus();
    if (conflicts) toast(`${many(conflicts, "place")} changed by both: yours stands, what runs is in comments above it`, "warn");
    else toast(merging ? "Your changes are merged into what runs now" : "This is what runs now");
  } catch (error) {
    trouble(error);
  }
}

async function keepFigures() {
  const said = await call("/api/v1/config/draft", { method: "POST", body: { text: base.text }, patience: 30_000 });
  runningFigures = said.services;
}

function apply() {
  const text = editor.text;
  put(text, false);
}

function put(text, force) {
  confirm({
    title: force ? "Replace the file that somebody has edited?" : "Apply this configuration?",
    danger: force,
    verb: force ? "Replace it" : "Apply",
    subscribe: () => () => {},
    describe: () => [
      force && make("p", {}, "The file on disk is not what lb has loaded: somebody has edited it since. That edit is lost, but for the copy beside it whose name ends with ~. To take it up first, cancel and reload lb."),
      planned(),
      draft.warnings.length > 0 && make("p", { class: "message warn" }, `! ${many(draft.warnings.length, "warning")}: see the list below the text.`),
      draft.plan.length > 0 && !draft.refusal && make("p", { class: "muted" }, "The file is written, and all workers take it up at once. No request is lost."),
    ],
    preview: async (unserved) => ({ allowed: unserved || !draft.refusal, changes: [], refusal: draft.refusal, forcible: Boolean(draft.refusal) }),
    forcible: "Apply it all the same (force)",
    order: async (unserved) => {
      try {
        const answer = await call("/api/v1/config", { method: "PUT", body: { text, force, force_unserved: unserved }, headers: { "If-Match": base.etag }, patience: 60_000 });
        return { answer };
      } catch (error) {
        if (error instanceof Problem && error.status === 412) return { conflict: error.message };
        if (error instanceof Problem && error.type === "/problems/the-file-was-edited" && !force) return { edited: true };
        if (error instanceof Problem && error.status === 422) soon(0);
        throw error;
      }
    },
    done: ({ answer, conflict, edited }) => {
      if (edited) put(text, true);
      else if (conflict) behind(conflict).catch(trouble);
      else applied(answer).catch(trouble);
    },
  });
}

async function applied(answer) {
  toast(answer.changed ? `Applied: ${many(answer.lines.length, "change")}` : "Applied; nothing that runs has changed");
  base = await running();
  soon(0);
  await keepFigures();
  renderForms();
}

function revert() {
  confirm({
    title: "Go back to what runs?", verb: "Revert", danger: true, subscribe: () => () => {},
    describe: () => make("p", {}, "All that was changed here is taken back. Undo brings it back again."),
    order: async () => true,
    done: () => {
      editor.replace(base.text);
      byId("yaml").focus();
    },
  });
}

/** On narrow screens one part is shown at a time. */
function look(view) {
  main.dataset.view = view;
  for (const button of document.querySelectorAll(".views button")) attribute(button, "aria-pressed", String(button.dataset.view === view));
}

async function begin() {
  byId("editor").append(editor.node);
  byId("apply").addEventListener("click", apply);
  byId("revert").addEventListener("click", revert);
  byId("undo").addEventListener("click", () => editor.move(-1));
  byId("redo").addEventListener("click", () => editor.move(1));
  for (const button of document.querySelectorAll(".views button")) button.addEventListener("click", () => look(button.dataset.view));
  document.addEventListener("keydown", (event) => {
    if ((event.ctrlKey || event.metaKey) && !event.altKey && event.key.toLowerCase() === "s") {
      event.preventDefault(); // saving is applying here
      if (!document.querySelector("dialog[open]")) byId("apply").click();
    }
  });
  window.addEventListener("beforeunload", (event) => {
    if (editor.text !== base.text) event.preventDefault();
  });
  window.addEventListener("hashchange", () => {
    chosen = decodeURIComponent(location.hash.slice(1));
    if (draft) renderForms();
  });
  await start();
  setInterval(watch, LOOK_EVERY);
}

async function start() {
  for (;;) {
    try {
      page.schema = await call("/api/v1/config/schema");
      base = await running();
      const status = await call("/api/v1/status");
      say(byId("about"), `lb ${status.version}`);
      say(byId("file"), status.config.file);
      connected(true);
      break;
    } catch (error) {
      if (error instanceof Problem) {
        byId("overtaken").replaceChildren(refusal(error));
        show(byId("overtaken"), true);
        return;
      }
      if (!(error instanceof Unreachable)) throw error;
      connected(false, error.message);
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
  }
  editor.replace(base.text, { fresh: true });
  clearTimeout(timer);
  await ask();
  runningFigures = draft?.services || [];
  announce("The configuration is loaded.");
}

begin();
