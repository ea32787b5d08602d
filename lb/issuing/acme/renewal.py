"""When a certificate is renewed: in the authority's window (ARI, RFC 9773), else at two thirds of its life. Pure.

A share of the life fits certificates of 90, 45 and 6 days alike, which a number of days does not. The dice are an
argument: a random moment of the window spreads the renewals of many clients.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from lb.issuing.acme.answers import RenewalInfo

#: Part of its life after which a certificate is renewed where the authority names no window.
RENEW_AT = 2 / 3
#: Seconds between two questions for the window: what the authority asks for, within these bounds.
ASK_EVERY, ASK_AT_LEAST, ASK_AT_MOST = 6 * 3600.0, 3600.0, 24 * 3600.0
#: Seconds before the question is repeated that got no answer.
ASK_AGAIN = 3600.0


class Ari(msgspec.Struct, frozen=True):
    """What the authority has said about the renewal of one certificate."""

    certificate: str = ""  # the id that it is about
    start: float = 0.0  # Unix times
    end: float = 0.0
    chosen: float = 0.0  # the moment in the window; 0: no window is known
    ask_at: float = 0.0  # when the authority is asked again
    explanation: str = ""  # an address for people


def renew_at(not_before: float, not_after: float, ari: Ari) -> float:
    """The moment from which a certificate is renewed. All times are Unix times."""
    own = not_before + (not_after - not_before) * RENEW_AT
    if not ari.chosen:
        return own
    # A window that begins after the end, or at it, is a mistake: it must not let the certificate expire.
    return ari.chosen if ari.chosen < not_after else own


def asked(known: Ari, certificate: str, info: RenewalInfo, retry_after: float, now: float, dice: float) -> Ari:
    """The authority has named a window. `dice`: 0 ≤ dice < 1.

    The moment stays as long as the window does, so that asking often does not draw it closer.
    """
    start, end = _seconds(info.suggested_window.start), _seconds(info.suggested_window.end)
    again = now + min(max(retry_after or ASK_EVERY, ASK_AT_LEAST), ASK_AT_MOST)
    if end <= start:  # RFC 9773 section 4.2: not valid, to be treated as no answer
        return unanswered(known, certificate, now)
    if known.certificate == certificate and (known.start, known.end) == (start, end) and known.chosen:
        chosen = known.chosen
    else:
        chosen = start + (end - start) * dice
    return Ari(certificate, start, end, chosen, again, info.explanation_url)


def unanswered(known: Ari, certificate: str, now: float, again: float = ASK_AGAIN) -> Ari:
    """There is no answer: the window before stays in force. `again`: seconds to the next question."""
    if known.certificate != certificate:
        known = Ari(certificate)
    return msgspec.structs.replace(known, ask_at=now + again)


def _seconds(moment: datetime) -> float:
    # A time without a zone is one of UTC, since RFC 3339 knows no local times.
    return (moment if moment.tzinfo is not None else moment.astimezone()).timestamp()
