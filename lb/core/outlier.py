"""Outlier ejection: which targets fail their requests while their probes pass. Settings first."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Outlier:
    """When a target's own traffic speaks against it. Defaults are Envoy's unless the comment says otherwise."""

    consecutive_failures: int = 5  # requests in a row that failed in any way; 0: off
    consecutive_connect: int = 3  # connections in a row that could not be made (ours: they cost the client a retry)
    failure_share: float = 0.5  # of a window's requests (Envoy: 85 %, not enforced); 0: off
    minimum: int = 20  # requests in the window below which shares and latencies say nothing (Envoy: 50 and 100)
    window: float = 10.0  # seconds
    peers: int = 3  # targets with `minimum` requests that a comparison needs (Envoy: 5)
    deviations: float = 1.9  # success rate below mean - deviations × standard deviation; 0: off
    latency: float = 0.0  # times the peers' median that its own mean latency may be; 0: off
    max_ejected: float = 0.34  # share of a pool that may be out at one time; one target always may
