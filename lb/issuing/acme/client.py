"""The conversation with one ACME authority: nonces, signatures, time limits, and bounds for what it may answer.

Whatever an authority does has one of three outcomes beside success. `Unreachable`: there was no answer in time.
`Nonsense` (`answers`): there was one, and it is not ACME. `Rejected`: it has refused, and said why. A rejected nonce is
none of these: the request is repeated with the new one (RFC 8555 section 6.5; Pebble rejects 5 % on purpose).
"""

from __future__ import annotations

import email.utils
import json
import ssl
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from types import TracebackType
from typing import Any, Self

import aiohttp
from yarl import URL

import lb
from lb.issuing.acme.answers import (
    Authorization,
    Directory,
    Identifier,
    Nonsense,
    Order,
    Problem,
    RenewalInfo,
    read,
    read_problem,
)
from lb.issuing.acme.jose import AccountKey, encode
from lb.issuing.acme.material import Unusable, pem_only

#: Seconds for one request, from the connection to the last byte of the answer.
REQUEST_TIME = 30.0
#: Bytes of an answer. A chain of certificates has about 4 KiB.
LARGEST_ANSWER = 1 << 20
#: Times that a request is sent when its nonce is rejected each time. One in 160,000 requests to Pebble fails so.
NONCE_TRIES = 4
#: Nonces that are kept for the next requests.
NONCES = 16


class Unreachable(Exception):  # noqa: N818 - it says what the authority is
    """No answer: no connection, no trust, or not in time."""


class Rejected(Exception):  # noqa: N818 - it says what happened
    """The authority has refused."""

    def __init__(self, problem: Problem, status: int, retry_after: float) -> None:
        super().__init__(f"{problem} (status {status})")
        self.problem = problem
        self.status = status
        self.retry_after = retry_after  # seconds; 0: it names none


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that is no refusal."""

    status: int
    body: bytes
    location: str
    retry_after: float


@dataclass(frozen=True, slots=True)
class Binding:
    """An account elsewhere that the ACME account is bound to."""

    key_id: str
    mac_key: bytes


class Client:
    """One authority, by the account of one key. Use it in `async with`."""

    def __init__(self, directory: str, key: AccountKey, trust: ssl.SSLContext, account: str = "") -> None:
        self.key = key
        self.account = account  # address of the account; empty: it is not registered
        self._address = directory
        self._scheme = URL(directory).scheme
        self._trust = trust
        self._directory: Directory | None = None
        self._nonces: deque[str] = deque(maxlen=NONCES)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._trust, limit=4),
            timeout=aiohttp.ClientTimeout(total=REQUEST_TIME),
            headers={"User-Agent": f"lb/{lb.__version__}", "Accept-Language": "en"},
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    # --- what is asked ----------------------------------------------------------------------------------------------

    async def directory(self) -> Directory:
        """Where the authority takes orders; asked for once."""
        if self._directory is None:
            self._directory = read(Directory, (await self._get(self._address)).body)
        return self._directory

    async def register(self, contact: str, binding: Binding | None) -> str:
        """The address of the account of this key, which is made unless there is one. Its terms are agreed to."""
        directory = await self.directory()
        payload: dict[str, Any] = {"termsOfServiceAgreed": True, "contact": [f"mailto:{contact}"] if contact else []}
        if binding is not None:
            payload["externalAccountBinding"] = self.key.bound_to(
                binding.key_id, binding.mac_key, directory.new_account
            )
        elif directory.meta.external_account_required:
            text = "the authority takes accounts with an external binding alone: give `eab` its key_id and key_file"
            raise Rejected(Problem("urn:ietf:params:acme:error:externalAccountRequired", text), 0, 0.0)
        self.account = ""
        answer = await self._post(directory.new_account, payload)
        self.account = self._checked(answer.location, "account")
        return self.account

    async def set_contact(self, contact: str) -> None:
        """Tell the authority another address for its messages."""
        await self._post(self.account, {"contact": [f"mailto:{contact}"] if contact else []})

    async def place(self, names: Sequence[str], profile: str, replaces: str) -> tuple[str, Order]:
        """A new order: its address and state. `replaces` is left out where the authority has no renewal windows."""
        directory = await self.directory()
        payload: dict[str, Any] = {"identifiers": [{"type": "dns", "value": name} for name in names]}
        if profile:
            if profile not in directory.meta.profiles:
                offered = ", ".join(sorted(directory.meta.profiles)) or "none"
                text = f"the authority has no profile {profile}; it offers: {offered}"
                raise Rejected(Problem("urn:ietf:params:acme:error:invalidProfile", text), 0, 0.0)
            payload["profile"] = profile
        if replaces and directory.renewal_info:
            payload["replaces"] = replaces
        answer = await self._post(directory.new_order, payload)
        order = read(Order, answer.body)
        wanted = {Identifier(name) for name in names}
        if order.identifiers and set(order.identifiers) != wanted:
            raise Nonsense("the order is for other names than asked for")
        return self._checked(answer.location, "order"), order

    async def order(self, url: str) -> tuple[Order, float]:
        """The state of an order, and the seconds that the authority asks to wait."""
        answer = await self._post(url)
        return read(Order, answer.body), answer.retry_after

    async def authorization(self, url: str) -> tuple[Authorization, float]:
        answer = await self._post(url)
        return read(Authorization, answer.body), answer.retry_after

    async def respond(self, url: str) -> None:
        """The answer to a challenge is ready."""
        await self._post(url, {})

    async def finalize(self, url: str, csr: bytes) -> tuple[Order, float]:
        answer = await self._post(url, {"csr": encode(csr)})
        return read(Order, answer.body), answer.retry_after

    async def certificate(self, url: str) -> bytes:
        """The chain as PEM, the certificate first."""
        answer = await self._post(url, accept="application/pem-certificate-chain")
        try:
            return pem_only(answer.body)
        except Unusable as error:
            raise Nonsense(str(error)) from None

    async def renewal_info(self, certificate: str) -> tuple[RenewalInfo, float] | None:
        """The window for the renewal of a certificate; None: the authority names none (RFC 9773)."""
        directory = await self.directory()
        if not directory.renewal_info or not certificate:
            return None
        answer = await self._get(f"{directory.renewal_info.rstrip('/')}/{certificate}")
        return read(RenewalInfo, answer.body), answer.retry_after

    # --- how it is asked --------------------------------------------------------------------------------------------

    async def _get(self, url: str) -> Answer:
        return await self._send("GET", url)

    async def _post(self, url: str, payload: dict[str, Any] | None = None, accept: str = "application/json") -> Answer:
        """A signed request; without a payload it reads only."""
        body = b"" if payload is None else json.dumps(payload).encode()
        tries = 0
        while True:
            nonce = self._nonces.pop() if self._nonces else await self._new_nonce()
            tries += 1
            try:
                return await self._send("POST", url, self.key.sign(body, url, nonce, self.account), accept)
            except Rejected as error:
                if error.problem.kind != "badNonce" or tries == NONCE_TRIES:
                    raise

    async def _new_nonce(self) -> str:
        self._nonces.clear()
        await self._send("HEAD", (await self.directory()).new_nonce)
        if not self._nonces:
            raise Nonsense("no nonce: the answer has no Replay-Nonce")
        return self._nonces.pop()

    async def _send(self, method: str, url: str, body: bytes | None = None, accept: str = "application/json") -> Answer:
        assert self._session is not None
        headers = {"Accept": accept}
        if body is not None:
            headers["Content-Type"] = "application/jose+json"
        address = URL(self._checked(url, "address"), encoded=True)
        try:
            async with self._session.request(
                method, address, data=body, headers=headers, allow_redirects=method == "GET", max_redirects=3
            ) as response:
                content = await _bounded(response)
        except TimeoutError:
            raise Unreachable(f"{address.host}: no answer within {REQUEST_TIME:g} s") from None
        except aiohttp.InvalidURL:
            raise Nonsense(f"the authority names an address that is none: {url[:100]}") from None
        except (aiohttp.ClientResponseError, aiohttp.ClientPayloadError) as error:
            raise Nonsense(f"{address.host}: no answer of HTTP: {_shortly(error)}") from None
        except (aiohttp.ClientError, OSError, ssl.SSLError) as error:
            raise Unreachable(f"{address.host}: {_shortly(error)}") from None
        nonce = response.headers.get("Replay-Nonce", "")
        if nonce and len(nonce) <= 1024:
            self._nonces.append(nonce)
        retry_after = _retry_after(response.headers.get("Retry-After", ""), time.time())
        if not 200 <= response.status < 300:
            problem = read_problem(content)
            if not problem.detail and problem.type == "about:blank":
                problem = Problem(detail=f"{method} {address.path} was answered with status {response.status}")
            raise Rejected(problem, response.status, retry_after)
        return Answer(response.status, content, response.headers.get("Location", ""), retry_after)

    def _checked(self, url: str, what: str) -> str:
        """An address that the authority has named. It may not lead to another scheme."""
        try:
            scheme = URL(url).scheme
        except ValueError:
            scheme = ""
        if scheme != self._scheme:
            raise Nonsense(f"no {what} address of {self._scheme}: {url[:100] or 'nothing'}")
        return url


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    content = bytearray()
    async for piece in response.content.iter_any():
        content += piece
        if len(content) > LARGEST_ANSWER:
            raise Nonsense(f"the answer is longer than {LARGEST_ANSWER} bytes")
    return bytes(content)


def _retry_after(text: str, now: float) -> float:
    """Seconds, from a number or a date; 0: neither."""
    if text.strip().isdecimal():
        return min(float(text.strip()), 1e9)
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    return max(0.0, (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - now)


def _shortly(error: BaseException) -> str:
    text = str(error) or type(error).__name__
    return text if len(text) <= 200 else text[:199] + "…"
