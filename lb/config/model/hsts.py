"""Strict-Transport-Security, of a listener or of a route."""

from __future__ import annotations

from lb.config.model.fields import Duration, Flag
from lb.config.model.section import Section
from lb.http import hsts


class Hsts(Section):
    """HTTP Strict Transport Security (RFC 6797): browsers come to this host by https alone."""

    max_age: Duration = 31536000.0
    """How long browsers keep to it after each answer. `0s`: they forget it at once."""
    include_subdomains: Flag = False
    """For all names below this host, too: each of them must be served by https."""
    preload: Flag = False
    """Say that the host may be put on the list that browsers are shipped with. Leaving that list takes months. It
    wants `include_subdomains` and a `max_age` of 365d or more."""

    def value(self) -> str:
        """The field's value."""
        return hsts.value(int(self.max_age), self.include_subdomains, self.preload)
