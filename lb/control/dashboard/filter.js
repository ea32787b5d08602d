// The filter box: words that a target must all have, in its name, state or reason.

import { STATE_WORDS } from "./words.js";

/** A function target → whether it is wanted, or null if everything is. */
export function wanted(text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  if (!words.length) return null;
  const states = new Set(Object.values(STATE_WORDS));
  return (target) => {
    const state = STATE_WORDS[target.state];
    const name = target.id.toLowerCase();
    const reason = target.reason.toLowerCase();
    // "ready" means the state, and is not to find "unready".
    return words.every((word) => (states.has(word) ? state === word : name.includes(word) || state.includes(word) || reason.includes(word)));
  };
}
