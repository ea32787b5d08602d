// What all pages share: the bar's state of the connection, the banner when it is lost, the token, short messages.

import { forgetToken, hasToken, onTokenNeeded } from "./api.js";
import { make, say, show } from "./dom.js";
import { span } from "./words.js";

const byId = (id) => document.getElementById(id);
let lostSince = 0;
let lastGood = 0;
let ticking = 0;

/** Say whether there is a connection; `why` when there is none. Old data is greyed (body.stale), its age shown. */
export function connected(yes, why = "") {
  const state = byId("link-state");
  if (yes) {
    if (lostSince) announce("The connection is back.");
    lostSince = 0;
    lastGood = Date.now();
    clearInterval(ticking);
    ticking = 0;
    show(byId("banner"), false);
    document.body.classList.remove("stale");
    state.className = "link-state";
    say(state, "connected");
    return;
  }
  if (!lostSince) {
    lostSince = Date.now();
    announce(`The connection to lb is lost: ${why}. What is shown is old.`);
    ticking = setInterval(tell, 1000);
  }
  state.className = "link-state lost";
  say(state, "connection lost");
  document.body.classList.add("stale");
  show(byId("banner"), true);
  tell();

  function tell() {
    const age = lastGood ? `What is shown is ${span((Date.now() - lastGood) / 1000)} old.` : "Nothing could be loaded yet.";
    say(byId("banner"), `✕ No connection to lb (${why}). ${age} Trying again by itself.`);
  }
}

/** Tell screen readers, politely; the newest word wins. */
export function announce(text) {
  const place = byId("announcer");
  if (place) say(place, text);
}

/** A short message in the corner. It goes by itself, unless it is bad news. */
export function toast(text, kind = "good") {
  const place = byId("toasts");
  const message = make("div", { class: `message ${kind}` }, make("span", {}, text),
    make("button", { class: "quiet", type: "button", "aria-label": "Dismiss this message", onclick: () => message.remove() }, "✕"));
  place.append(message);
  place.hidePopover(); // and again, to be above a dialog that was opened since
  place.showPopover();
  announce(text);
  if (kind !== "bad") setTimeout(() => message.remove(), 6000);
  while (place.children.length > 4) place.firstElementChild.remove();
}

/** Ask for the token in a dialog, whenever the server wants one. */
function askForToken(wrong) {
  return new Promise((resolve) => {
    const input = make("input", {
      type: "password", id: "token", name: "token", required: true, autocomplete: "current-password",
      "aria-describedby": "token-hint",
    });
    const form = make("form", { method: "dialog" },
      make("h2", { id: "token-title" }, "This admin port needs its token"),
      make("input", { type: "text", autocomplete: "username", value: `lb admin at ${location.host}`, hidden: true }), // for password managers
      wrong && make("p", { class: "message bad", role: "alert" }, "That token was not accepted."),
      make("div", { class: "field" },
        make("label", { for: "token" }, "Token"), input,
        make("span", { class: "hint", id: "token-hint" }, "It stands in the file that admin.token_file names. It is kept until this tab closes.")),
      make("div", { class: "end" }, make("button", { class: "primary", type: "submit" }, "Continue")));
    const dialog = make("dialog", { "aria-labelledby": "token-title", id: "token-dialog" }, form);
    dialog.addEventListener("cancel", (event) => event.preventDefault()); // nothing can be shown without it
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const token = input.value.trim();
      if (!token) return;
      dialog.close();
      dialog.remove();
      resolve(token);
      show(byId("sign-out"), true);
    });
    document.body.append(dialog);
    dialog.showModal();
    input.focus();
  });
}

const messages = byId("toasts");
messages?.setAttribute("role", "region");
messages?.setAttribute("aria-label", "Messages");
messages?.setAttribute("popover", "manual");

onTokenNeeded(askForToken);
const signOut = byId("sign-out");
if (signOut) {
  show(signOut, hasToken());
  signOut.addEventListener("click", () => {
    forgetToken();
    location.reload();
  });
}
