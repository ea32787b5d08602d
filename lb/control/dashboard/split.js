// Who has the traffic: a bar in the colours of the pools, with their names and percentages above it.

import { keyed, make, say } from "./dom.js";

/** Returns {node, update(parts)}; `parts` is [[pool, percent, place in the service], …]. */
export function splitBar() {
  const legend = make("div", { class: "legend" });
  const bar = make("div", { class: "bars", "aria-hidden": "true" });
  const node = make("div", { class: "split" }, legend, bar);

  function update(parts) {
    const some = parts.filter(([, percent]) => percent > 0);
    keyed(legend, some, ([name]) => name, ([, , place]) => make("span", { class: `part${place % 4}` }), (each, [name, percent]) => say(each, `${name} ${percent} %`));
    keyed(bar, some, ([name]) => name, ([, , place]) => make("span", { class: `part${place % 4} ease` }), (each, [, percent]) => {
      each.style.width = `${percent}%`;
    });
  }

  return { node, update };
}
