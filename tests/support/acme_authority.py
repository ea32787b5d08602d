"""A small ACME authority for what Pebble does not do: renewal windows, profiles, and answers that are none.

It checks signatures, nonces and addresses as RFC 8555 demands, and issues certificates by an authority of `trustme`'s
kind. A challenge is taken as met when `check` says so.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, hmac, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.x509.oid import NameOID

from lb.issuing.acme import jose

#: A fault takes the place of an answer: it gets the request, and returns the answer.
Fault = Callable[[web.Request], Awaitable[web.StreamResponse]]


class AcmeAuthority:
    """`async with AcmeAuthority() as authority`: then `authority.directory` is its address."""

    def __init__(self, *, life: timedelta = timedelta(days=90), windows: bool = True, binding: bytes = b"") -> None:
        self.life = life
        self.windows = windows
        self.binding = binding  # the MAC key of external accounts; empty: none is needed
        self.window: tuple[datetime, datetime] | None = None  # for every certificate; None: its last third
        self.profiles: dict[str, str] = {"classic": "ninety days", "short": "six days"}
        self.asked: list[str] = []  # what was asked for, in order
        self.counts: Counter[str] = Counter()
        self.orders: list[dict[str, Any]] = []
        self.faults: dict[str, list[Fault]] = {}  # by what is asked for; each is used once
        self.always: dict[str, Fault] = {}  # by what is asked for
        self.check: Callable[[str, str, str], Awaitable[bool]] = _met  # (name, token, key authorization)
        self.contacts: list[list[str]] = []
        self.directory = ""
        self.chains: dict[str, bytes] = {}  # by ARI's id
        self._nonces: set[str] = set()
        self._accounts: dict[str, dict[str, str]] = {}  # address → JWK
        self._authorizations: dict[str, dict[str, Any]] = {}
        self._runner: web.AppRunner | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test authority")])
        now = datetime.now(UTC)
        self.root = (
            x509.CertificateBuilder()
            .subject_name(self._name)
            .issuer_name(self._name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=3650))
            .add_extension(x509.BasicConstraints(True, None), True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), False)
            .sign(self._key, hashes.SHA256())
        )

    async def __aenter__(self) -> AcmeAuthority:
        app = web.Application()
        app.router.add_route("*", "/{what}{rest:.*}", self._serve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0]
        self.base = f"http://{host}:{port}"
        self.directory = f"{self.base}/directory"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    # --- answers ----------------------------------------------------------------------------------------------------

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        what = request.match_info["what"]
        self.asked.append(what)
        self.counts[what] += 1
        if self.faults.get(what):
            return await self.faults[what].pop(0)(request)
        if what in self.always:
            return await self.always[what](request)
        answer = await getattr(self, f"_on_{what}")(request)
        if what not in ("directory", "renewalInfo"):
            answer.headers["Replay-Nonce"] = self.new_nonce()
        return answer

    def new_nonce(self) -> str:
        nonce = secrets.token_urlsafe(12)
        self._nonces.add(nonce)
        return nonce

    async def _on_directory(self, request: web.Request) -> web.Response:
        answer: dict[str, Any] = {
            name: f"{self.base}/{name}" for name in ("newNonce", "newAccount", "newOrder", "revokeCert", "keyChange")
        }
        answer["meta"] = {"externalAccountRequired": bool(self.binding), "profiles": self.profiles, "website": "x"}
        if self.windows:
            answer["renewalInfo"] = f"{self.base}/renewalInfo"
        return web.json_response(answer)

    async def _on_newNonce(self, request: web.Request) -> web.Response:  # noqa: N802 - the protocol's name
        return web.Response()

    async def _read(self, request: web.Request) -> tuple[dict[str, Any], str, dict[str, str]] | web.Response:
        """(payload, account, key) of a signed request, or a refusal."""
        message = json.loads(await request.read())
        head = json.loads(jose.decode(message["protected"]))
        if head["nonce"] not in self._nonces:
            return problem("badNonce", "used already", 400)
        self._nonces.discard(head["nonce"])
        if head["url"] != str(request.url):
            return problem("unauthorized", f"signed for {head['url']}", 401)
        jwk = self._accounts.get(head.get("kid", ""), head.get("jwk"))
        if jwk is None:
            return problem("accountDoesNotExist", "unknown", 400)
        x, y = (int.from_bytes(jose.decode(jwk[part]), "big") for part in "xy")
        signature = jose.decode(message["signature"])
        ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key().verify(
            encode_dss_signature(int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")),
            f"{message['protected']}.{message['payload']}".encode(),
            ec.ECDSA(hashes.SHA256()),
        )
        payload = jose.decode(message["payload"])
        return json.loads(payload or b"{}"), head.get("kid", ""), jwk

    def forget_accounts(self) -> None:
        """As an authority that was set up anew."""
        self._accounts.clear()

    async def _on_newAccount(self, request: web.Request) -> web.Response:  # noqa: N802
        read = await self._read(request)
        if isinstance(read, web.Response):
            return read
        payload, _, jwk = read
        if self.binding:
            bound = payload.get("externalAccountBinding")
            if bound is None:
                return problem("externalAccountRequired", "bind it", 403)
            mac = hmac.HMAC(self.binding, hashes.SHA256())
            mac.update(f"{bound['protected']}.{bound['payload']}".encode())
            mac.verify(jose.decode(bound["signature"]))
        known = next((url for url, key in self._accounts.items() if key == jwk), "")
        url = known or f"{self.base}/account/{len(self._accounts)}"
        self._accounts[url] = jwk
        self.contacts.append(payload["contact"])
        return web.json_response({"status": "valid"}, status=200 if known else 201, headers={"Location": url})

    async def _on_account(self, request: web.Request) -> web.Response:
        read = await self._read(request)
        if isinstance(read, web.Response):
            return read
        self.contacts.append(read[0]["contact"])
        return web.json_response({"status": "valid"})

    async def _on_newOrder(self, request: web.Request) -> web.Response:  # noqa: N802
        read = await self._read(request)
        if isinstance(read, web.Response):
            return read
        payload, account, jwk = read
        number = len(self.orders)
        urls = []
        for each in payload["identifiers"]:
            id = f"{number}-{each['value']}"
            kinds = ("http-01", "dns-01", "tls-alpn-01")
            challenges = [
                {
                    "type": kind,
                    "url": f"{self.base}/challenge/{id}/{kind}",
                    "status": "pending",
                    "token": secrets.token_urlsafe(16),
                }
                for kind in kinds
            ]
            authorization = {"status": "pending", "identifier": each, "challenges": challenges, "jwk": jwk}
            self._authorizations[id] = authorization
            urls.append(f"{self.base}/authorization/{id}")
        url = f"{self.base}/order/{number}"
        self.orders.append({**payload, "status": "pending", "url": url, "authorizations": urls, "account": account})
        return web.json_response(self._order(number), status=201, headers={"Location": url})

    def _order(self, number: int) -> dict[str, Any]:
        order = self.orders[number]
        states = {self._authorizations[url.rpartition("/")[2]]["status"] for url in order["authorizations"]}
        if order["status"] == "pending":
            order["status"] = "invalid" if "invalid" in states else "ready" if states == {"valid"} else "pending"
        shown = {key: order[key] for key in ("status", "identifiers", "authorizations", "certificate") if key in order}
        return {**shown, "finalize": f"{self.base}/finalize/{number}"}

    async def _on_order(self, request: web.Request) -> web.Response:
        read = await self._read(request)
        return read if isinstance(read, web.Response) else web.json_response(self._order(_last(request)))

    async def _on_authorization(self, request: web.Request) -> web.Response:
        read = await self._read(request)
        if isinstance(read, web.Response):
            return read
        found = self._authorizations[request.path.rpartition("/")[2]]
        return web.json_response({key: value for key, value in found.items() if key != "jwk"})

    async def _on_challenge(self, request: web.Request) -> web.Response:
        read = await self._read(request)
        if isinstance(read, web.Response):
            return read
        id, kind = request.path.split("/")[-2:]
        authorization = self._authorizations[id]
        challenge = next(each for each in authorization["challenges"] if each["type"] == kind)
        if challenge["status"] == "pending":
            challenge["status"] = "processing"
            task = asyncio.ensure_future(self._validate(authorization, challenge))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return web.json_response(challenge)

    async def _validate(self, authorization: dict[str, Any], challenge: dict[str, Any]) -> None:
        text = json.dumps(authorization["jwk"], separators=(",", ":"), sort_keys=True).encode()
        digest = hashes.Hash(hashes.SHA256())
        digest.update(text)
        expected = f"{challenge['token']}.{jose.encode(digest.finalize())}"
        met = await self.check(authorization["identifier"]["value"], challenge["token"], expected)
        challenge["status"] = authorization["status"] = "valid" if met else "invalid"
        if not met:
            kind = "urn:ietf:params:acme:error:unauthorized"
            challenge["error"] = {"type": kind, "detail": "the answer is another one", "status": 403}

    async def _on_finalize(self, request: web.Request) -> web.Response:
        read = await self._read(request)
        if isinstance(read, web.Response):
            return read
        number = _last(request)
        order = self.orders[number]
        if self._order(number)["status"] != "ready":
            return problem("orderNotReady", order["status"], 403)
        request_ = x509.load_der_x509_csr(jose.decode(read[0]["csr"]))
        order["chain"] = self._issue(request_)
        order |= {"status": "valid", "certificate": f"{self.base}/certificate/{number}"}
        return web.json_response(self._order(number))

    async def _on_certificate(self, request: web.Request) -> web.Response:
        read = await self._read(request)
        if isinstance(read, web.Response):
            return read
        chain = self.orders[_last(request)]["chain"]
        return web.Response(body=chain, content_type="application/pem-certificate-chain")

    async def _on_renewalInfo(self, request: web.Request) -> web.Response:  # noqa: N802
        id = request.path.rpartition("/")[2]
        leaf = x509.load_pem_x509_certificate(self.chains[id])
        begin, end = leaf.not_valid_before_utc, leaf.not_valid_after_utc
        start, stop = self.window or (begin + (end - begin) * 2 / 3, begin + (end - begin) * 5 / 6)
        window = {"start": start.isoformat(), "end": stop.isoformat()}
        answer = {"suggestedWindow": window, "explanationURL": "https://ca.example.org/why"}
        return web.json_response(answer, headers={"Retry-After": "21600"})

    def _issue(self, request: x509.CertificateSigningRequest) -> bytes:
        names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        now = datetime.now(UTC)
        leaf = (
            x509.CertificateBuilder()
            .subject_name(request.subject)
            .issuer_name(self._name)
            .public_key(request.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now)
            .not_valid_after(now + self.life)
            .add_extension(names.value, True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), False)
            .sign(self._key, hashes.SHA256())
        )
        pem = leaf.public_bytes(serialization.Encoding.PEM)
        issuer = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
        serial = leaf.serial_number.to_bytes(leaf.serial_number.bit_length() // 8 + 1, "big")
        assert issuer is not None
        self.chains[f"{jose.encode(issuer)}.{jose.encode(serial)}"] = pem
        return pem + self.root.public_bytes(serialization.Encoding.PEM)


async def _met(name: str, token: str, expected: str) -> bool:
    return True


def _last(request: web.Request) -> int:
    return int(request.path.rpartition("/")[2])


def problem(kind: str, detail: str, status: int, **headers: str) -> web.Response:
    """A refusal; `Retry_After` among the headers is Retry-After."""
    body = {"type": f"urn:ietf:params:acme:error:{kind}", "detail": detail, "status": status}
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return web.json_response(body, status=status, headers=fields, content_type="application/problem+json")
