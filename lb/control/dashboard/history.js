// What the page has seen so far: the figures of every service and pool for the last five minutes. Nothing is asked of
// the server for it; a reloaded page begins anew.

export const SPAN = 300; // seconds

/** name → [{at, rate, errors, p50, p99, inFlight}], oldest first. */
export class History {
  #rings = new Map();

  /** Take the figures of one status. */
  take(status, at) {
    const seen = new Set();
    for (const service of status.services) {
      this.#add(service.name, service, service.in_flight, at, seen);
      for (const pool of service.pools) {
        const inFlight = pool.targets.reduce((sum, target) => sum + target.in_flight, 0);
        this.#add(`${service.name}/${pool.name}`, pool, inFlight, at, seen);
      }
    }
    for (const name of this.#rings.keys()) if (!seen.has(name)) this.#rings.delete(name);
  }

  of(name) {
    return this.#rings.get(name) || [];
  }

  #add(name, figures, inFlight, at, seen) {
    seen.add(name);
    let ring = this.#rings.get(name);
    if (!ring) this.#rings.set(name, ring = []);
    const { rate, error_rate: errors, p50, p99 } = figures;
    ring.push({ at, rate, errors, p50, p99, inFlight });
    while (ring.length && ring[0].at < at - SPAN) ring.shift();
  }
}
