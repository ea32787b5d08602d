"""Header fields that make browsers careful."""

from __future__ import annotations

from typing import Literal

from lb.config.model.fields import Flag, HeaderValue
from lb.config.model.section import Section


class SecurityHeaders(Section):
    """Fields that answers get where the target has not set them: X-Content-Type-Options, and the ones below."""

    frame: Literal["deny", "same_origin", "any"] = "same_origin"
    """Who may show the page in a frame (X-Frame-Options): nobody, pages of the same origin, or anybody."""
    referrer: HeaderValue = "strict-origin-when-cross-origin"
    """What other sites learn of the page's URL (Referrer-Policy). Empty: the field is left out."""
    isolate: Flag = False
    """Keep windows of other origins apart (Cross-Origin-Opener-Policy: same-origin). It breaks logins in pop-ups."""
    content_policy: HeaderValue = ""
    """Content-Security-Policy. Empty: none."""
    permissions: HeaderValue = ""
    """Permissions-Policy, such as `camera=(), microphone=()`. Empty: none."""

    def fields(self) -> tuple[tuple[str, str], ...]:
        """The fields with their values."""
        framed = {"deny": "DENY", "same_origin": "SAMEORIGIN", "any": ""}[self.frame]
        found = (
            ("X-Content-Type-Options", "nosniff"),
            ("X-Frame-Options", framed),
            ("Referrer-Policy", self.referrer),
            ("Cross-Origin-Opener-Policy", "same-origin" if self.isolate else ""),
            ("Content-Security-Policy", self.content_policy),
            ("Permissions-Policy", self.permissions),
        )
        return tuple((name, value) for name, value in found if value)
