"""The Autobahn WebSocket suite, straight to a server and through lb: the verdicts must be the same.

    python -m tests.third_party.autobahn WSTEST [CASE …]

WSTEST is the path of `wstest`. It runs on Python 2.7 alone: make an environment with a virtualenv below 20.22 and
install `autobahntestsuite` there. Default cases: all of them.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import websockets
from websockets.asyncio.server import ServerConnection, serve

from lb.core.targets import AccessLog, Listener, Pool, Rotation, Route, Service, Snapshot, Target
from lb.proxy.plane import DataPlane

CASES = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*", "12.*", "13.*"]


async def echo(connection: ServerConnection) -> None:
    """The server under both."""
    try:
        async for message in connection:
            await connection.send(message)
    except websockets.ConnectionClosed:
        pass


async def run(wstest: str, cases: list[str]) -> int:
    """Run the suite; returns the number of cases that differ."""
    loop = asyncio.get_running_loop()
    async with serve(echo, "127.0.0.1", 0, max_size=1 << 26, compression="deflate") as server:
        port = next(iter(server.sockets)).getsockname()[1]
        id = f"ws/one/127.0.0.1:{port}"
        service = Service("ws", (Pool("one", (Target(id, "ws", "one", "127.0.0.1", port),)),))
        rotation = Rotation("ws", 1, (("one", 100),), (("one", ((id, 1.0),)),))
        plane = DataPlane(worker=0, loop=loop, alarm=print)
        plane.apply(
            Snapshot(1, services=(service,), routes=(Route("ws"),), rotations=(rotation,), access_log=AccessLog("off"))
        )
        front = await loop.create_server(plane.downstream(Listener("front")), "127.0.0.1", 0)
        through = front.sockets[0].getsockname()[1]
        with tempfile.TemporaryDirectory() as folder:
            spec = {
                "outdir": folder,
                "servers": [
                    {"agent": "straight", "url": f"ws://127.0.0.1:{port}"},
                    {"agent": "lb", "url": f"ws://127.0.0.1:{through}"},
                ],
                "cases": cases,
                "exclude-cases": [],
                "exclude-agent-cases": {},
            }
            path = Path(folder) / "spec.json"
            path.write_text(json.dumps(spec))
            command = [wstest, "-m", "fuzzingclient", "-s", str(path)]
            process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL)
            await process.wait()
            index = json.loads((Path(folder) / "index.json").read_text())
        plane.close()
    straight, ours = index["straight"], index["lb"]
    differ = [
        case
        for case, result in straight.items()
        if (result["behavior"], result["behaviorClose"]) != (ours[case]["behavior"], ours[case]["behaviorClose"])
    ]
    counted = dict(Counter(result["behavior"] for result in ours.values()))
    print(f"{len(straight)} cases, {len(differ)} verdicts differ {differ}; through lb: {counted}")
    return len(differ)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    raise SystemExit(min(1, asyncio.run(run(sys.argv[1], sys.argv[2:] or CASES))))
