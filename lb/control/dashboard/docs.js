// The API by its own description (/openapi.json): what each operation takes and answers, and a form to try it.
// What changes something is asked about before it is sent. Nothing is loaded from anywhere but this port.

import { call, hasToken } from "./api.js";
import { make, say, show } from "./dom.js";
import { announce } from "./shell.js";

const byId = (id) => document.getElementById(id);
const LINES = 200; // events of a stream that are kept on the page
const SHOWN = 200_000; // characters of an answer that are shown

let spec = null;
const entries = []; // {operation, details, link, words}

// --- words and schemas ---------------------------------------------------------------------------------------------

/** Text with `code` and **strong** parts. */
function inline(text) {
  return text.split(/(`[^`]+`|\*\*[^*]+\*\*)/).filter(Boolean).map((part) => {
    if (part.startsWith("`")) return make("code", {}, part.slice(1, -1));
    if (part.startsWith("**")) return make("strong", {}, part.slice(2, -2));
    return part;
  });
}

/** Paragraphs and lists. */
function words(text) {
  const box = make("div", { class: "words" });
  for (const block of text.trim().split(/\n\n+/)) {
    const items = block.split(/^\* /m).map((item) => item.replaceAll("\n", " ").trim()).filter(Boolean);
    if (block.startsWith("* ")) box.append(make("ul", {}, items.map((item) => make("li", {}, inline(item)))));
    else box.append(make("p", {}, inline(block.replaceAll("\n", " "))));
  }
  return box;
}

/** What a reference leads to. */
function resolved(value) {
  if (!value?.$ref) return value ?? {};
  return value.$ref.slice(2).split("/").reduce((place, step) => place[step], spec);
}

function nameOf(schema) {
  return schema?.$ref ? schema.$ref.split("/").pop() : "";
}

/** A type in a few words. */
function typeOf(schema) {
  if (schema.$ref) return nameOf(schema);
  if (schema.anyOf) return [...new Set(schema.anyOf.map(typeOf))].join(" | ");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  if (schema.type === "array") return schema.prefixItems ? `[${schema.prefixItems.map(typeOf).join(", ")}]` : `${typeOf(schema.items ?? {})}[]`;
  if (schema.type === "object" && typeof schema.additionalProperties === "object") return `{…: ${typeOf(schema.additionalProperties)}}`;
  const bounds = [];
  if (schema.minimum !== undefined) bounds.push(`≥ ${schema.minimum}`);
  if (schema.exclusiveMinimum !== undefined) bounds.push(`> ${schema.exclusiveMinimum}`);
  if (schema.maximum !== undefined) bounds.push(`≤ ${schema.maximum}`);
  return [schema.type ?? "any value", ...bounds].join(" ");
}

/** The schemas of objects that a schema speaks of, itself included. */
function objectsIn(schema) {
  if (schema.$ref) return [schema];
  return [...(schema.anyOf ?? []), ...(schema.prefixItems ?? []), schema.items, schema.additionalProperties]
    .filter((inner) => inner && typeof inner === "object").flatMap(objectsIn);
}

/** A type by its name, that opens to show what is in it. */
function typeView(schema) {
  const objects = objectsIn(schema).filter((inner) => resolved(inner).properties);
  if (!objects.length) return make("span", { class: "type" }, typeOf(schema));
  const details = make("details", { class: "type" }, make("summary", {}, typeOf(schema)));
  details.addEventListener("toggle", () => {
    if (details.open && details.children.length === 1) details.append(...objects.map((inner) => fields(resolved(inner))));
  });
  return details;
}

function fields(schema) {
  const required = new Set(schema.required ?? []);
  return make("ul", { class: "schema" }, Object.entries(schema.properties ?? {}).map(([name, inner]) => make("li", {},
    make("span", { class: "name" }, name), required.has(name) ? " " : " (may be left out) ",
    inner.description ? make("span", {}, inline(inner.description), " ") : null, typeView(inner))));
}

/** A value that fits a schema, from its examples. */
function sample(schema, depth = 0) {
  const known = resolved(schema);
  if (known.examples?.length) return known.examples[0];
  if (known.default !== undefined) return known.default;
  if (known.const !== undefined) return known.const;
  if (known.enum) return known.enum[0];
  if (known.anyOf) return sample(known.anyOf[0], depth);
  if (known.type === "object" && depth < 4) {
    const needed = new Set(known.required ?? []);
    return Object.fromEntries(Object.entries(known.properties ?? {})
      .filter(([name, inner]) => needed.has(name) || resolved(inner).examples).map(([name, inner]) => [name, sample(inner, depth + 1)]));
  }
  return { array: [], string: "", integer: 0, number: 0, boolean: false, object: {} }[known.type] ?? null;
}

// --- one operation -------------------------------------------------------------------------------------------------

function operationView(operation) {
  const { method, path, said } = operation;
  const details = make("details", { class: "operation", id: said.operationId },
    make("summary", {}, make("span", { class: `verb ${method}` }, method.toUpperCase()), make("h4", {}, path),
      make("span", { class: "muted" }, said.summary)));
  details.addEventListener("toggle", () => {
    if (details.open && details.children.length === 1) details.append(inside(operation));
  });
  return details;
}

function inside(operation) {
  const { said } = operation;
  const box = make("div", { class: "inside" });
  if (said.description) box.append(words(said.description));
  box.append(tryForm(operation));
  if (said.requestBody) {
    const schema = said.requestBody.content["application/json"].schema;
    box.append(make("div", { class: "part" }, make("h5", {}, `Body: ${nameOf(schema)}`, said.requestBody.required ? "" : " (may be left out)"),
      fields(resolved(schema))));
  }
  box.append(make("div", { class: "part" }, make("h5", {}, "Answers"), make("ul", { class: "responses" },
    Object.entries(said.responses).map(([code, answer]) => answerView(code, answer)))));
  return box;
}

function answerView(code, answer) {
  const kind = code < "300" ? "good" : code < "400" ? "calm" : "bad";
  const item = make("li", {}, make("span", { class: `code ${kind}` }, code), words(answer.description));
  for (const [media, { schema }] of Object.entries(answer.content ?? {})) {
    item.append(make("div", {}, make("code", {}, media), " ", typeView(schema)));
  }
  return item;
}

// --- trying it -----------------------------------------------------------------------------------------------------

function tryForm(operation) {
  const { said, method } = operation;
  const id = (name) => `${said.operationId}-${name}`;
  const inputs = (said.parameters ?? []).map((parameter) => {
    const wanted = parameter.required;
    const value = wanted ? String(parameter.example ?? "") : "";
    const input = make("input", {
      type: "text", id: id(parameter.name), value, required: wanted, autocomplete: "off", spellcheck: "false",
      placeholder: !wanted && parameter.example !== undefined ? `such as ${parameter.example}` : false,
      "aria-describedby": id(`${parameter.name}-hint`),
    });
    return { parameter, input };
  });
  const medias = Object.keys(said.responses["200"]?.content ?? {});
  const accept = medias.length > 1 ? make("select", { id: id("accept") }, medias.map((media) => make("option", {}, media))) : null;
  const draft = said.requestBody ? JSON.stringify(sample(said.requestBody.content["application/json"].schema), null, 2) : "";
  const body = said.requestBody
    ? make("textarea", { id: id("body"), spellcheck: "false", rows: Math.min(12, draft.split("\n").length + 1) }, draft)
    : null;
  const button = make("button", { type: "submit", class: said["x-lb-order"] ? "danger" : "primary" }, said["x-lb-order"] ? "Send this order…" : "Send");
  const stop = make("button", { type: "button", hidden: true }, "Stop");
  const result = make("div", { class: "result", "aria-live": "polite" });
  const form = make("form", { class: "try", "aria-label": `Try ${said.operationId}` },
    inputs.length || accept ? make("div", { class: "fields" },
      inputs.map(({ parameter, input }) => make("div", { class: "field" },
        make("label", { for: input.id, class: parameter.required ? "required" : false }, `${parameter.name} · ${parameter.in}`), input,
        make("span", { class: "hint", id: id(`${parameter.name}-hint`) }, inline(parameter.description)))),
      accept && make("div", { class: "field" }, make("label", { for: accept.id }, "Accept"), accept)) : null,
    body && make("div", { class: "field" }, make("label", { for: body.id }, "Body · JSON"), body),
    make("div", { class: "row" }, button, stop), result);

  const request = () => {
    let path = operation.path;
    const query = new URLSearchParams();
    const headers = { Accept: accept?.value ?? medias[0] ?? "application/json" };
    for (const { parameter, input } of inputs) {
      const value = input.value.trim();
      if (parameter.in === "path") path = path.replace(`{${parameter.name}}`, value.split("/").map(encodeURIComponent).join("/"));
      else if (!value) continue;
      else if (parameter.in === "query") query.set(parameter.name, value);
      else headers[parameter.name] = value;
    }
    if (body) headers["Content-Type"] = "application/json";
    return { method: method.toUpperCase(), path: query.size ? `${path}?${query}` : path, headers, body: body?.value };
  };

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const wanted = request();
    if (said["x-lb-order"] && !(await agreed(said.summary, wanted))) return;
    const limit = new AbortController();
    stop.onclick = () => limit.abort();
    button.disabled = true;
    show(stop, true);
    try {
      await tried(wanted, result, limit.signal);
    } finally {
      button.disabled = false;
      show(stop, false);
    }
  });
  return form;
}

/** Ask before something is changed. */
function agreed(summary, wanted) {
  return new Promise((resolve) => {
    const yes = make("button", { type: "submit", value: "yes", class: "danger" }, "Send it");
    const dialog = make("dialog", { "aria-labelledby": "agree-title" }, make("form", { method: "dialog" },
      make("h2", { id: "agree-title" }, "This changes what runs"),
      make("p", {}, `${summary}.`),
      make("pre", { tabindex: "0", "aria-label": "The request" }, `${wanted.method} ${wanted.path}${wanted.body ? `\n\n${wanted.body}` : ""}`),
      make("div", { class: "end" }, make("button", { type: "submit", value: "no" }, "Cancel"), yes)));
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** The command that does the same. */
function curl(wanted) {
  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const parts = ["curl"];
  if (wanted.headers.Accept === "text/event-stream") parts.push("-N");
  if (wanted.method !== "GET") parts.push(`-X ${wanted.method}`);
  if (hasToken()) parts.push('-H "Authorization: Bearer $(cat TOKEN_FILE)"');
  for (const [name, value] of Object.entries(wanted.headers)) {
    if (name !== "Accept" || value === "text/event-stream") parts.push(`-H ${quoted(`${name}: ${value}`)}`);
  }
  if (wanted.body) parts.push(`-d ${quoted(wanted.body)}`);
  return [...parts, quoted(location.origin + wanted.path)].join(" ");
}

async function tried(wanted, place, signal) {
  const head = make("p", {}, make("span", { class: "muted" }, "Sent; waiting for the answer…"));
  const command = make("details", {}, make("summary", {}, "The same with curl"), make("pre", { tabindex: "0", "aria-label": "Command" }, curl(wanted)));
  place.replaceChildren(head, command);
  const began = performance.now();
  let response;
  try {
    response = await fetch(wanted.path, {
      method: wanted.method, body: wanted.body, signal, cache: "no-store", credentials: "omit",
      headers: { ...wanted.headers, ...authority(), "X-LB-Actor": "API page" },
    });
  } catch (error) {
    head.replaceChildren(make("strong", {}, signal.aborted ? "Stopped." : `No answer: ${error.message}`));
    return;
  }
  const kind = response.ok ? "good" : response.status < 400 ? "calm" : "bad";
  const spent = Math.round(performance.now() - began);
  head.replaceChildren(make("span", { class: `code ${kind}` }, String(response.status)), ` ${response.statusText} · ${spent} ms`);
  announce(`Answered ${response.status} ${response.statusText}`);
  if (response.status === 401) {
    head.append(" ", make("button", { type: "button", onclick: () => call("/api/v1/status").catch(() => {}) }, "Give the token…"));
  }
  const headers = [...response.headers].map(([name, value]) => `${name}: ${value}`).join("\n");
  const shown = make("pre", { tabindex: "0", "aria-label": "Answer" });
  place.append(shown, make("details", {}, make("summary", {}, "Headers"), make("pre", { tabindex: "0", "aria-label": "Headers" }, headers)));
  if (response.headers.get("Content-Type")?.startsWith("text/event-stream")) await listen(response, shown, signal);
  else say(shown, pretty(await response.text().catch(() => "the answer broke off"), response));
}

function authority() {
  const token = sessionStorage.getItem("lb-token");
  return token ? { Authorization: `Bearer ${token}` } : {};
}

function pretty(text, response) {
  let shown = text;
  if (response.headers.get("Content-Type")?.includes("json")) {
    try {
      shown = JSON.stringify(JSON.parse(text), null, 2);
    } catch { /* shown as it came */ }
  }
  if (shown.length > SHOWN) return `${shown.slice(0, SHOWN)}\n… and ${shown.length - SHOWN} more characters`;
  return shown || "(empty)";
}

/** Show a stream as it comes, until it ends or is stopped. */
async function listen(response, place, signal) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let lines = [];
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      lines = (lines.join("\n") + value).split("\n").slice(-LINES);
      say(place, lines.join("\n"));
      place.scrollTop = place.scrollHeight;
    }
  } catch {
    if (!signal.aborted) lines.push("(the stream broke off)");
  }
  say(place, lines.join("\n"));
}

// --- the page ------------------------------------------------------------------------------------------------------

function build() {
  const { info, paths, tags } = spec;
  say(byId("about"), `lb ${info.version}`);
  byId("intro").replaceChildren(make("h2", {}, info.title), words(info.description),
    make("p", {}, make("a", { href: "/openapi.json", download: "lb-openapi.json" }, "The OpenAPI 3.1 document"), ", for tools."));
  const all = Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, said]) => ({ path, method, said })));
  for (const tag of tags) {
    const list = make("ul", {});
    const heading = make("h3", {}, tag.name[0].toUpperCase() + tag.name.slice(1));
    const group = make("section", { class: "stack", "aria-labelledby": `tag-${tag.name}` },
      make("div", {}, make("h3", { id: `tag-${tag.name}` }, tag.name[0].toUpperCase() + tag.name.slice(1)), make("p", { class: "muted" }, tag.description)));
    for (const operation of all.filter(({ said }) => said.tags.includes(tag.name))) {
      const details = operationView(operation);
      const { said, method, path } = operation;
      const link = make("li", {}, make("a", { href: `#${said.operationId}` }, make("span", { class: `verb ${method}` }, method.toUpperCase()), make("span", {}, said.summary)));
      link.addEventListener("click", () => reveal(said.operationId));
      list.append(link);
      group.append(details);
      entries.push({ details, link, group, heading, words: `${method} ${path} ${said.operationId} ${said.summary} ${said.description ?? ""}`.toLowerCase() });
    }
    byId("contents").append(heading, list);
    byId("operations").append(group);
  }
}

function filter() {
  const wanted = byId("filter").value.trim().toLowerCase().split(/\s+/).filter(Boolean);
  let count = 0;
  for (const entry of entries) {
    const fits = wanted.every((word) => entry.words.includes(word));
    show(entry.details, fits);
    show(entry.link, fits);
    count += fits ? 1 : 0;
  }
  for (const { group, heading } of entries) {
    const some = entries.some((entry) => entry.group === group && !entry.details.hidden);
    show(group, some);
    show(heading, some);
  }
  say(byId("found"), wanted.length ? `${count} of ${entries.length} operations` : `${entries.length} operations`);
}

/** Open an operation and go to it. */
function reveal(id) {
  const details = id && byId(id);
  if (!details || details.tagName !== "DETAILS") return;
  details.open = true;
  details.scrollIntoView();
  details.querySelector("summary").focus({ preventScroll: true });
}

async function start() {
  try {
    spec = await call("/openapi.json");
  } catch (error) {
    byId("intro").replaceChildren(make("p", { class: "message bad", role: "alert" }, `The description cannot be loaded: ${error.message}`));
    return;
  }
  build();
  filter();
  byId("filter").addEventListener("input", filter);
  window.addEventListener("hashchange", () => reveal(location.hash.slice(1)));
  reveal(location.hash.slice(1));
}

start();
