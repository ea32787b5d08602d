"""Fault: an error that ends a connection of HTTP/2."""

from __future__ import annotations


class Fault(Exception):  # noqa: N818
    """An error that ends the connection (RFC 9113 section 5.4.1): code, label of the metric, text for the client."""

    def __init__(self, code: int, reason: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.reason = reason
        self.text = text
