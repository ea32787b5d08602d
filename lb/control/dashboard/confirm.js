// The dialog before every order: what will happen, as the server foresees it, and why it is refused when it is.

import { Problem } from "./api.js";
import { attribute, make, say, show } from "./dom.js";

const BAD = new Set(["unserved", "short"]); // kinds of changes that clients may notice
const CALM = 150; // milliseconds after the last key before the server is asked again
let number = 0;

/** A refusal as a message: the title, the detail, a reason for each target or field. */
export function refusal(error, opening = "Refused") {
  const known = error instanceof Problem;
  const reasons = known ? error.reasons : [];
  return make("div", { class: "message bad" },
    make("strong", {}, known ? `✕ ${opening}: ${error.title}` : "✕ No answer"),
    known ? error.detail : `${error.message}. It is not known whether the order was carried out; see what the page shows when the connection is back.`,
    reasons.length > 0 && make("ul", {}, reasons.slice(0, 8).map((each) => make("li", {}, `${each.target || each.where || ""}: ${each.reason}`)),
      reasons.length > 8 && make("li", {}, `and ${reasons.length - 8} more`)));
}

/**
 * Ask before an order. `fields`: nodes to fill in; `describe()`: nodes that picture the order, made anew with every
 * status and every change of a field; `check()`: [input, what is wrong with it] or null; `preview(force)`: the server's preview ({allowed, changes, refusal, forcible}), if
 * it has one for this order; `order(force)`: carries it out; `forcible`: the words beside the box that forces it;
 * `done(answer)`: what follows. `subscribe(listener)` calls back with every status and returns how to stop that.
 */
export function confirm({ title, fields = [], describe, check = () => null, preview = null, verb, danger = false, forcible = "", order, done = () => {}, subscribe }) {
  const id = `confirm-${++number}`;
  const picture = make("div", { class: "what" });
  const lines = make("ul", { class: "will", hidden: true });
  const wrong = make("p", { class: "wrong", role: "alert", id: `${id}-wrong`, hidden: true });
  const refused = make("div", { role: "alert" });
  const force = make("input", { type: "checkbox", id: `${id}-force` });
  const forceLine = make("p", { hidden: true }, force, make("label", { for: `${id}-force` }, forcible));
  const go = make("button", { type: "submit", class: danger ? "danger" : "primary" }, verb);
  const cancel = make("button", { type: "button", onclick: () => dialog.close() }, "Cancel");
  const form = make("form", { method: "dialog", novalidate: true }, make("h2", { id: `${id}-title` }, title), fields, wrong,
    make("div", { class: "what", id: `${id}-what` }, picture, lines), refused, forceLine,
    make("div", { class: "end" }, cancel, go));
  const dialog = make("dialog", { "aria-labelledby": `${id}-title`, "aria-describedby": `${id}-what`, class: "confirm" }, form);
  let asked = 0;
  let timer = 0;
  let ordered = false; // the answer to the order itself stays, until another one is filled in

  const tell = (after = 0) => {
    const words = make("div", {}, describe());
    if (words.textContent !== picture.textContent) picture.replaceChildren(...words.childNodes);
    show(picture, picture.childNodes.length > 0);
    clearTimeout(timer);
    const found = check();
    for (const input of form.querySelectorAll("[aria-invalid]")) if (input !== found?.[0]) input.removeAttribute("aria-invalid");
    show(wrong, Boolean(found));
    if (found) {
      attribute(found[0], "aria-invalid", "true");
      attribute(found[0], "aria-errormessage", wrong.id);
      say(wrong, found[1]);
      asked += 1; // what is on its way is about something else
      refused.replaceChildren();
      show(lines, false);
    } else if (preview) timer = setTimeout(look, after);
  };

  async function look() {
    if (check()) return;
    const mine = ++asked;
    let seen;
    try {
      seen = await preview(force.checked);
    } catch (error) {
      if (!(error instanceof Problem)) return; // the page says that there is no connection
      seen = { allowed: false, changes: [], refusal: error, forcible: false };
    }
    if (mine !== asked || ordered) return;
    const said = seen.changes;
    if (said.map((change) => change.text).join() !== [...lines.children].map((line) => line.textContent).join()) {
      lines.replaceChildren(...said.map((change) => make("li", { class: BAD.has(change.kind) ? "bad" : null }, change.text)));
    }
    show(lines, said.length > 0 && (seen.allowed || force.checked));
    dialog.classList.toggle("no", !seen.allowed);
    if (seen.allowed) {
      refused.replaceChildren();
    } else {
      const why = seen.refusal instanceof Problem ? seen.refusal : new Problem(seen.refusal.status, seen.refusal);
      const message = refusal(why, "This would be refused");
      if (message.textContent !== refused.textContent) refused.replaceChildren(message);
    }
    show(forceLine, Boolean(forcible) && (seen.forcible || force.checked));
  }

  tell();
  const stop = subscribe(() => tell());
  form.addEventListener("input", () => {
    ordered = false;
    tell(CALM);
  });
  dialog.addEventListener("close", () => {
    stop();
    clearTimeout(timer);
    dialog.remove();
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const found = check();
    if (found) found[0].focus();
    if (found || go.disabled) return;
    go.disabled = true;
    say(go, "Under way…");
    ordered = true;
    try {
      const answer = await order(force.checked);
      dialog.close();
      done(answer);
    } catch (error) {
      refused.replaceChildren(refusal(error));
      refused.scrollIntoView({ block: "nearest" });
    } finally {
      go.disabled = false;
      say(go, verb);
    }
  });
  document.body.append(dialog);
  dialog.showModal();
  (form.querySelector("input:not([type=checkbox]):not(:disabled), select") || go).focus();
  return dialog;
}
