"""What may be known of a target, and a wish for it."""

from __future__ import annotations

from msgspec.structs import replace

from lb.core.desired import ServiceDesired
from lb.core.lifecycle import Health

READY = Health(probe="ready", ever_ready=True, text="HTTP 200")
UNREADY = replace(READY, probe="unready")
STARTING = Health()
EJECTED = replace(READY, ejected_until=99.0)
DRAINING = replace(READY, admin="draining")
BLUE = ServiceDesired(active="blue", configured="blue")
