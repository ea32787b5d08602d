// How figures and states are said.

/** States from the worst to the best, as they are sorted. */
export const STATES = ["unready", "ejected", "starting", "draining", "drained", "slow_start", "ready"];
export const STATE_WORDS = {
  starting: "starting", ready: "ready", slow_start: "slow start", unready: "unready", ejected: "ejected",
  draining: "draining", drained: "drained",
};

/** A duration in at most two units: 0.4 s, 12 s, 3 min 5 s, 2 h 10 min, 3 d 4 h. */
export function span(seconds) {
  if (seconds < 9.95) return `${Math.max(0, seconds).toFixed(1)} s`;
  const whole = Math.round(seconds);
  for (const [size, unit, part, name] of [[86400, "d", 3600, "h"], [3600, "h", 60, "min"], [60, "min", 1, "s"]]) {
    if (whole >= size) {
      const rest = Math.floor((whole % size) / part);
      return `${Math.floor(whole / size)} ${unit}${rest ? ` ${rest} ${name}` : ""}`;
    }
  }
  return `${whole} s`;
}

/** An age in one unit, for narrow columns: 5 s, 3 min, 2 h, 4 d. */
export function age(seconds) {
  if (seconds < 60) return `${Math.max(0, Math.floor(seconds))} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

/** A latency: 0.42 ms, 12 ms, 1.20 s; a dash without any. */
export function latency(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 0.00995) return `${(seconds * 1000).toFixed(1)} ms`;
  if (seconds < 0.9995) return `${Math.round(seconds * 1000)} ms`;
  return `${seconds.toFixed(2)} s`;
}

/** Requests per second. */
export function rate(value) {
  if (value === 0) return "0";
  if (value < 9.95) return value.toFixed(1);
  return Math.round(value).toLocaleString("en");
}

/** A share of 1 as a percentage: 0 %, 0.03 %, 1.2 %, 37 %. */
export function percent(value) {
  const parts = value * 100;
  if (parts === 0) return "0 %";
  if (parts < 0.095) return `${parts.toFixed(2)} %`;
  if (parts < 9.95) return `${parts.toFixed(1)} %`;
  return `${Math.round(parts)} %`;
}

export function count(number) {
  return number.toLocaleString("en");
}

/** "1 target", "3 targets". */
export function many(number, noun) {
  return `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
}

/** A time of day, with the date if it is not today. `at`: Unix seconds. */
export function clock(at) {
  const then = new Date(at * 1000);
  const time = then.toLocaleTimeString("en-GB");
  return then.toDateString() === new Date().toDateString() ? time : `${then.toLocaleDateString("en-CA")} ${time}`;
}

export function capital(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** The last part of a target's id. */
export function shortName(id) {
  return id.split("/").slice(2).join("/");
}
