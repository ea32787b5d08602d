// Small charts: lines over the last five minutes, and the last probes as bars.

import { attribute, draw, make, say } from "./dom.js";
import { SPAN } from "./history.js";
import { clock, count, latency, span } from "./words.js";

const WINDOWS = [60, 120, SPAN]; // seconds that a chart looks back: the shortest that holds what there is
const WIDTH = 200;
const HEIGHT = 40;
const GAP = 7; // seconds without a figure that are drawn as a gap

/**
 * A chart of one or more lines: `lines` is [{name, of: point => value or null}], `format` says a value, `least` is the
 * smallest top of the scale. Returns {node, update(points, now)}.
 */
export function chart({ title, lines, format, least }) {
  const paths = lines.map((line, index) => draw("path", { class: `line line${index}` }));
  const area = draw("path", { class: "area" });
  const marker = draw("path", { class: "marker" });
  const svg = draw("svg", {
    class: "chart", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img",
  }, area, ...paths, marker);
  const values = lines.map((line, index) => make("span", { class: "value" },
    lines.length > 1 && make("span", { class: `key key${index}`, "aria-hidden": "true" }),
    line.name && make("span", { class: "of" }, line.name), make("b")));
  const peak = make("span", { class: "peak" });
  const node = make("figure", { class: "figure" },
    make("figcaption", {}, make("span", { class: "title" }, title), peak), make("div", { class: "values" }, values), svg);
  let shown = [];
  let end = 0;
  let back = SPAN;
  let looking = null; // the point under the pointer

  const tell = () => {
    const point = looking || shown[shown.length - 1];
    lines.forEach((line, index) => say(values[index].lastChild, point ? format(line.of(point)) : "–"));
    node.classList.toggle("looking", Boolean(looking));
  };

  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const at = end - back + ((event.clientX - box.left) / box.width) * back;
    looking = shown.reduce((best, point) => (!best || Math.abs(point.at - at) < Math.abs(best.at - at) ? point : best), null);
    if (!looking) return;
    const x = place(looking.at);
    attribute(marker, "d", `M${x} 0V${HEIGHT}`);
    say(peak, clock(looking.at));
    tell();
  });
  svg.addEventListener("pointerleave", () => {
    looking = null;
    attribute(marker, "d", null);
    update(shown, end);
  });

  const place = (at) => (((at - end + back) / back) * WIDTH).toFixed(1);

  function update(points, now) {
    shown = points;
    end = now;
    back = WINDOWS.find((length) => !points.length || now - points[0].at <= length) || SPAN;
    const highest = Math.max(0, ...points.flatMap((point) => lines.map((line) => line.of(point) ?? 0)));
    const top = Math.max(least, highest);
    const height = (value) => (HEIGHT - 1.5 - (value / top) * (HEIGHT - 4)).toFixed(1);
    lines.forEach((line, index) => {
      const pieces = [];
      let before = null;
      for (const point of points) {
        const value = line.of(point);
        if (value === null || value === undefined) {
          before = null;
          continue;
        }
        pieces.push(`${before !== null && point.at - before < GAP ? "L" : "M"}${place(point.at)} ${height(value)}`);
        before = point.at;
      }
      attribute(paths[index], "d", pieces.join("") || null);
      if (!index && lines.length === 1 && pieces.length > 1) {
        attribute(area, "d", pieces.some((piece, at) => at && piece[0] === "M") ? null
          : `${pieces.join("")}V${HEIGHT}H${place(points.find((point) => line.of(point) !== null).at)}Z`);
      }
    });
    if (looking) return;
    tell();
    say(peak, points.length > 1 && highest ? `peak ${format(highest)}` : "");
    const said = values.map((value) => value.textContent).join(", ");
    attribute(svg, "aria-label", `${title}: ${said}; at most ${format(highest)} in the last ${span(back)}`);
  }

  return { node, update };
}

/** The last probes, newest last: the height is how long each took, the shape below whether it passed. */
export function probeStrip() {
  const slots = 10;
  const step = 34;
  const tall = 70;
  const svg = draw("svg", { class: "probes", viewBox: `0 0 ${slots * step} ${tall + 26}`, role: "img" });

  function update(probes, now) {
    const ordered = [...probes].reverse();
    const longest = Math.max(0.001, ...ordered.map((probe) => probe.seconds));
    svg.replaceChildren(
      draw("path", { class: "base", d: `M0 ${tall + 1}H${slots * step}` }),
      ...ordered.map((probe, index) => {
        const x = (slots - ordered.length + index) * step;
        const height = Math.max(2, (probe.seconds / longest) * (tall - 16));
        const middle = x + step / 2;
        const shape = probe.ok
          ? draw("circle", { cx: middle, cy: tall + 14, r: 5 })
          : draw("path", { class: "cross", d: `M${middle - 4} ${tall + 10}l8 8m0-8l-8 8` });
        return draw("g", { class: probe.ok ? "passed" : "failed" },
          draw("title", {}, `${span(now - probe.at)} ago: ${probe.ok ? "passed" : "failed"} after ${latency(probe.seconds)}: ${probe.text}`),
          draw("rect", { x: x + 5, y: tall - height, width: step - 10, height, rx: 2 }),
          draw("text", { x: middle, y: tall - height - 4, "text-anchor": "middle" }, latency(probe.seconds).replace(" ", "\u202f")),
          shape);
      }));
    const failed = ordered.filter((probe) => !probe.ok).length;
    attribute(svg, "aria-label", ordered.length
      ? `The last ${ordered.length} probes: ${failed} failed, the longest took ${latency(longest)}` : "No probe yet");
  }

  return { node: svg, update };
}

/** Runs of probes over time, a lane for each kind of check: what passed stands above its line, what failed hangs below. */
export function runBand() {
  const [wide, lane, middle, named] = [480, 36, 18, 12];
  const svg = draw("svg", { class: "band", role: "img" });

  function update(runs, now) {
    const from = Math.min(now - 1, ...runs.map((run) => run.first));
    const place = (at) => ((at - from) / (now - from)) * wide;
    const kinds = ["readiness", "liveness"].filter((kind) => runs.some((run) => run.check === kind));
    const title = kinds.length > 1 ? named : 0; // one lane needs no name
    const top = (kind) => Math.max(0, kinds.indexOf(kind)) * (lane + title) + title;
    const high = Math.max(1, kinds.length) * (lane + title) + 14;
    attribute(svg, "viewBox", `0 0 ${wide} ${high}`);
    svg.replaceChildren(
      ...kinds.map((kind) => draw("path", { class: "base", d: `M0 ${top(kind) + middle}H${wide}` })),
      ...(title ? kinds.map((kind) => draw("text", { class: "lane", x: 0, y: top(kind) - 2 }, kind)) : []),
      ...runs.map((run) => {
        const x = place(run.first);
        const width = Math.max(2, place(run.last) - x);
        const up = run.result === "passed";
        const [y, height] = up ? [2, middle - 3] : run.result === "failed" ? [middle + 1, middle - 3] : [middle - 6, 12];
        return draw("g", { class: run.result }, draw("title", {}, run.told), draw("rect", { x, y: top(run.check) + y, width, height, rx: 1 }));
      }),
      draw("text", { x: 0, y: high - 3 }, `${span(now - from)} ago`),
      draw("text", { x: wide, y: high - 3, "text-anchor": "end" }, "now"));
    const failed = runs.reduce((sum, run) => sum + run.failed, 0);
    const all = runs.reduce((sum, run) => sum + run.count, 0);
    attribute(svg, "aria-label", `${count(failed)} of ${count(all)} probes failed in the last ${span(now - from)}; told one by one below`);
  }

  return { node: svg, update };
}
