"""A process that orders one certificate, and is killed at a write that the test names.

`python -m tests.issuing.orderer JSON`: `folder`, `directory`, `ca_file`, `names`, `http_port`, and with `kill_at` the
number of the write after (`when`: "after") or before ("before") which it kills itself with SIGKILL. It ends with 0 when
the certificate is on the disk and its order is not.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aiohttp import web

from lb.config.certificate_sources import certificate_id
from lb.issuing.acme.attempt import Proof
from lb.issuing.renewals import Authority, Renewals, Wanted
from lb.issuing.store import Store


class KilledStore(Store):
    """A store whose process dies at one of its writes."""

    def __init__(self, folder: Path, kill_at: int, when: str) -> None:
        super().__init__(folder)
        self._left = kill_at
        self._when = when

    def _write(self, path: Path, data: bytes) -> None:
        self._left -= 1
        if self._left == 0 and self._when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        super()._write(path, data)
        print(f"wrote {path.name}", flush=True)
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


async def main(settings: dict[str, Any]) -> None:
    proofs: dict[str, str] = {}

    async def publish(id: str, challenge: str, found: Sequence[Proof]) -> None:
        proofs.clear()
        proofs.update({each.token: each.key_authorization for each in found})

    async def answer(request: web.Request) -> web.Response:
        text = proofs.get(request.match_info["token"])
        return web.Response(text=text) if text is not None else web.Response(status=404)

    app = web.Application()
    app.router.add_get("/.well-known/acme-challenge/{token}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", settings["http_port"], reuse_address=True).start()
    folder, names = Path(settings["folder"]), tuple(settings["names"])
    authority = Authority("test", settings["directory"], "ops@example.org", settings["ca_file"])
    id = certificate_id(names, authority.directory)
    store = KilledStore(folder, settings.get("kill_at", 0), settings.get("when", "after"))
    renewals = Renewals(
        store,
        publish=publish,
        on_change=lambda: None,
        tell=lambda text, name: print(text, flush=True),
    )
    renewals.want([Wanted(id, names, authority)])
    running = asyncio.ensure_future(renewals.run())
    while not renewals.pems() or store.order(id) is not None or renewals.fates()[0].under_way:
        await asyncio.sleep(0.01)
        if running.done():
            running.result()
    running.cancel()
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
