"""Which pools of a service may see a request. This is the one place that answers it.

- A request that a preview chooses sees the preview's pool, and no other version: a tester must know what was tested.
- Any other request sees the pools that share the traffic: the active one, or the pools of the rollout under way.
- The fallback sees a request while none of these pools has a target in rotation. It also sees a request that all their
  targets have failed, if that may be tried again. A preview's request is the exception: a tester must see the failure.
- A pool that was not released, was withdrawn or is reached by previews alone sees nothing else.
- A mirrored copy sees the mirror's pool alone. It is no request of a client, so none of this applies to it.

`shares` are the parts of 100 as in `Rotation.shares`; `ready` names the pools with at least one target in rotation.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence


def visible(
    shares: Sequence[tuple[str, int]], ready: Collection[str], fallback: str = "", preview: str = ""
) -> tuple[str, ...]:
    """The pools that may see a request, `preview` naming the pool that a preview chose for it. Empty: it gets 503."""
    chosen = (preview,) if preview else tuple(pool for pool, parts in shares if parts > 0)
    serving = tuple(pool for pool in chosen if pool in ready)
    if serving:
        return serving
    return (fallback,) if fallback in ready else ()


def asset_pools(
    shares: Sequence[tuple[str, int]], ready: Collection[str], answered: str, preview: str = ""
) -> tuple[str, ...]:
    """The pools that may have a page which the pool `answered` lacks: the other pools that share the traffic.

    Outside a rollout there is none, because a client can have got its page from the active pool alone.
    """
    return () if preview else tuple(pool for pool in visible(shares, ready) if pool != answered)
