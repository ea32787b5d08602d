"""When a failed order is tried again. Pure.

The waits are CertMagic's (async.go): a name whose DNS entry was forgotten is served minutes after it appears, and an
authority is not asked more than four times a day by a name that can never work.
"""

from __future__ import annotations

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0

#: Seconds before the next attempt, by failures in a row; the last one stays.
WAITS = (
    *(minutes * MINUTE for minutes in (1, 2, 2, 5, 10, 10, 10, 20, 20, 20, 20, 30, 30, 30, 30)),
    *(hours * HOUR for hours in (1, 1, 1, 2, 2, 3, 3, 6)),
)
#: Seconds after the first failure from which one attempt a day is enough. CertMagic stops altogether; a certificate
#: whose name comes back has to be found here without a person.
GIVES_UP_AFTER = 30 * DAY
#: The longest `Retry-After` that is believed.
LONGEST_RETRY_AFTER = 7 * DAY
#: An order at the production authority and one at staging are two attempts.
STAGING_FROM = 1


def wait(failures: int, failing_for: float, retry_after: float = 0.0) -> float:
    """Seconds to the next attempt.

    `failures`: in a row, at least 1. `failing_for`: seconds since the first of them. `retry_after`: what the authority
    has asked for, 0 for nothing; it is never undercut.
    """
    own = DAY if failing_for >= GIVES_UP_AFTER else WAITS[min(failures, len(WAITS)) - 1]
    return max(own, min(retry_after, LONGEST_RETRY_AFTER))


def asks_staging(failures: int, has_staging: bool, passed: bool, judged: bool) -> bool:
    """Whether the next attempt is made at the staging authority, whose limits are wide.

    `passed`: staging has issued the certificate since the last failure. `judged`: the last failure was the authority's
    verdict; an authority that cannot be reached says nothing that staging could repeat.
    """
    return has_staging and failures >= STAGING_FROM and judged and not passed
