"""Pebble, Let's Encrypt's test server, with its DNS server: every name is at 127.0.0.1.

It rejects 5 % of the nonces, so that each test of an order is one of repetitions as well. What it does not do: it knows
no renewal windows (`acme_authority` does), and its answers are always well-formed.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
from pathlib import Path
from types import TracebackType
from urllib.request import urlopen

import pytest
import trustme

from tests.support.ports import free_ports

MISSING = shutil.which("pebble") is None or shutil.which("pebble-challtestsrv") is None
#: For tests that need it.
needs_pebble = pytest.mark.skipif(MISSING, reason="pebble is not installed (Debian: apt-get install pebble)")


class Pebble:
    """A running Pebble. `ca_file` is what its own HTTPS is to be trusted by."""

    def __init__(self, folder: Path, *, http_port: int, tls_port: int = 1, **environment: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port, self.management, self.dns, dns_management = free_ports(4)
        self.directory = f"https://localhost:{self.port}/dir"
        self.ca_file = folder / "pebble-ca.pem"
        self._folder = folder
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.ca_file)
        leaf = authority.issue_cert("localhost", "127.0.0.1")
        cert, key = folder / "pebble.pem", folder / "pebble.key"
        cert.write_bytes(b"".join(each.bytes() for each in leaf.cert_chain_pems))
        leaf.private_key_pem.write_to_path(key)
        config = {
            "listenAddress": f"127.0.0.1:{self.port}",
            "managementListenAddress": f"127.0.0.1:{self.management}",
            "certificate": str(cert),
            "privateKey": str(key),
            "httpPort": http_port,
            "tlsPort": tls_port,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": False,
        }
        self._config = folder / "pebble.json"
        self._config.write_text(json.dumps({"pebble": config}))
        self._environment = {**os.environ, "PEBBLE_VA_NOSLEEP": "1", **environment}
        self._dns = self._started(
            [
                "pebble-challtestsrv",
                *("-dns01", f"127.0.0.1:{self.dns}", "-management", f"127.0.0.1:{dns_management}"),
                *("-defaultIPv6", "", "-http01", "", "-https01", "", "-tlsalpn01", ""),
            ],
            "dns.log",
        )
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def _started(self, command: list[str], log: str) -> subprocess.Popen[bytes]:
        with (self._folder / log).open("ab") as stream:
            return subprocess.Popen(command, stdout=stream, stderr=stream, env=self._environment)

    def start(self) -> None:
        """Start it, at the same address as before; its accounts, orders and keys are new ones."""
        command = ["pebble", "-config", str(self._config), "-dnsserver", f"127.0.0.1:{self.dns}"]
        self._process = self._started(command, "pebble.log")
        until = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                assert time.monotonic() < until, (self._folder / "pebble.log").read_text()
                time.sleep(0.05)
            else:
                return

    def stop(self) -> None:
        """It is away: connections are refused."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def root(self) -> str:
        """PEM of the root that its certificates lead to."""
        context = ssl.create_default_context(cafile=str(self.ca_file))
        with urlopen(f"https://localhost:{self.management}/roots/0", context=context) as answer:
            return str(answer.read().decode())

    def log(self) -> str:
        return (self._folder / "pebble.log").read_text()

    def close(self) -> None:
        self.stop()
        self._dns.kill()
        self._dns.wait()

    def __enter__(self) -> Pebble:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
