// The dialog before every order: what will happen, by the newest status; and when the order is refused, why.

import { Problem } from "./api.js";
import { make, say, show } from "./dom.js";

let number = 0;

/** A refusal as a message: the title, the detail, a reason for each target or field. */
export function refusal(error) {
  const known = error instanceof Problem;
  const reasons = known ? error.reasons : [];
  return make("div", { class: "message bad" },
    make("strong", {}, known ? `✕ Refused: ${error.title}` : "✕ No answer"),
    known ? error.detail : `${error.message}. It is not known whether the order was carried out; see what the page shows when the connection is back.`,
    reasons.length > 0 && make("ul", {}, reasons.slice(0, 8).map((each) => make("li", {}, `${each.target || each.where || ""}: ${each.reason}`)),
      reasons.length > 8 && make("li", {}, `and ${reasons.length - 8} more`)));
}

/**
 * Ask before an order. `fields`: nodes to fill in; `describe()`: nodes that say what will happen, asked for anew with
 * every status and every change of a field; `order(force)`: carries it out; `forcible`: whether it can be forced after
 * a refusal; `done(answer)`: what follows. `subscribe(listener)` calls back with every status and returns how to stop.
 */
export function confirm({ title, fields = [], describe, verb, danger = false, forcible = "", order, done = () => {}, subscribe }) {
  const id = `confirm-${++number}`;
  const what = make("div", { class: "what", id: `${id}-what` });
  const refused = make("div", { role: "alert" });
  const force = make("input", { type: "checkbox", id: `${id}-force` });
  const forceLine = make("p", { hidden: true }, force, make("label", { for: `${id}-force` }, forcible));
  const go = make("button", { type: "submit", class: danger ? "danger" : "primary" }, verb);
  const cancel = make("button", { type: "button", onclick: () => dialog.close() }, "Cancel");
  const form = make("form", { method: "dialog" }, make("h2", { id: `${id}-title` }, title), fields, what, refused, forceLine,
    make("div", { class: "end" }, cancel, go));
  const dialog = make("dialog", { "aria-labelledby": `${id}-title`, "aria-describedby": `${id}-what`, class: "confirm" }, form);

  const tell = () => {
    const words = make("div", {}, describe());
    if (words.textContent !== what.textContent) what.replaceChildren(...words.childNodes);
  };
  tell();
  const stop = subscribe(tell);
  form.addEventListener("input", (event) => {
    tell();
    if (event.target === force) return;
    refused.replaceChildren(); // another order is another matter
    force.checked = false;
    show(forceLine, false);
  });
  dialog.addEventListener("close", () => {
    stop();
    dialog.remove();
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (go.disabled) return;
    go.disabled = true;
    say(go, "Under way…");
    refused.replaceChildren();
    try {
      const answer = await order(force.checked);
      dialog.close();
      done(answer);
    } catch (error) {
      refused.replaceChildren(refusal(error));
      show(forceLine, Boolean(forcible) && error instanceof Problem && error.status === 409);
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
