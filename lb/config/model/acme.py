"""Certificate authorities that lb orders certificates from by itself (ACME, RFC 8555)."""

from __future__ import annotations

from typing import Literal

from lb.config.model.fields import FilePath, Url, Word
from lb.config.model.section import Section

#: Let's Encrypt's directories: where certificates are trusted, and where failed orders cost nothing.
LETS_ENCRYPT = "https://acme-v02.api.letsencrypt.org/directory"
LETS_ENCRYPT_STAGING = "https://acme-staging-v02.api.letsencrypt.org/directory"


class ExternalAccount(Section):
    """An account that the authority already knows, and that the ACME account is bound to (EAB)."""

    key_id: Word
    """The authority's name for the key."""
    key_file: FilePath
    """File with the key as the authority gives it: base64url text."""


class Acme(Section):
    """An ACME authority. Using it means agreeing to its terms of service."""

    directory: Url = LETS_ENCRYPT
    """The address of its directory. Left out: Let's Encrypt."""
    email: Word = ""
    """Where the authority may write about the account. Let's Encrypt no longer warns of certificates that expire."""
    ca_file: FilePath | None = None
    """Authorities by which the directory's own certificate is verified. Left out: the system's."""
    eab: ExternalAccount | None = None
    """The external account, for authorities that demand one."""
    challenge: Literal["http-01", "tls-alpn-01"] = "http-01"
    """How lb shows that it serves a name. `http-01`: the authority asks at port 80, and lb answers before any redirect
    or route. `tls-alpn-01`: it asks at port 443, by a handshake."""
    profile: Word = ""
    """One of the profiles that the authority offers, as `shortlived`. Left out: its usual one."""
    staging: Url | None = None
    """Directory at which an order that the authority has refused is repeated until it passes, since failures count
    against limits. Left out: Let's Encrypt's own staging directory for Let's Encrypt, and none for other ones."""

    def staging_directory(self) -> str:
        """The directory for repeated orders; empty: there is none."""
        return self.staging or (LETS_ENCRYPT_STAGING if self.directory == LETS_ENCRYPT else "")
