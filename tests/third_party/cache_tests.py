"""http-tests/cache-tests, straight to its origin and through lb: lb is no cache, so the results must be the same.

    python -m tests.third_party.cache_tests FOLDER

FOLDER is a checkout of github.com/http-tests/cache-tests after `npm install`. What may differ, and why:
- where the origin breaks off without an answer, a client through lb gets a 502 instead of a broken connection;
- where the origin's framing is broken, a 502 instead of nonsense.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from lb.core.targets import AccessLog, Listener, Pool, Rotation, Route, Service, Snapshot, Target
from lb.proxy.plane import DataPlane

ORIGIN_PORT = 8123


async def client(folder: Path, port: int) -> dict[str, object]:
    """Run the suite's client against a port."""
    environ = {**os.environ, "npm_config_base": f"http://localhost:{port}", "npm_package_config_id": ""}
    process = await asyncio.create_subprocess_exec(
        "node", "--no-warnings", "test-engine/cli.mjs", cwd=folder, env=environ, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    results: dict[str, object] = json.loads(out)
    return results


async def run(folder: Path) -> int:
    """Run both and compare; returns the number of unexplained differences."""
    loop = asyncio.get_running_loop()
    environ = {
        **os.environ,
        "npm_config_protocol": "http",
        "npm_config_port": str(ORIGIN_PORT),
        "npm_config_pidfile": str(folder / "server.pid"),
    }
    origin = await asyncio.create_subprocess_exec("node", "test-engine/server/server.mjs", cwd=folder, env=environ)
    try:
        await asyncio.sleep(1.5)
        id = f"ct/one/localhost:{ORIGIN_PORT}"
        service = Service("ct", (Pool("one", (Target(id, "ct", "one", "localhost", ORIGIN_PORT),)),))
        rotation = Rotation("ct", 1, (("one", 100),), (("one", ((id, 1.0),)),))
        plane = DataPlane(worker=0, loop=loop, alarm=lambda alarm: None)
        plane.apply(
            Snapshot(1, services=(service,), routes=(Route("ct"),), rotations=(rotation,), access_log=AccessLog("off"))
        )
        front = await loop.create_server(plane.downstream(Listener("front")), "localhost", 0)
        straight = await client(folder, ORIGIN_PORT)
        ours = await client(folder, front.sockets[0].getsockname()[1])
        retried = plane.services["ct"].retried
        plane.close()
    finally:
        origin.terminate()
        await origin.wait()
    unexplained = 0
    for name, result in straight.items():
        other = ours.get(name)
        if other == result or (isinstance(result, list) and isinstance(other, list) and "Expires" in str(result)):
            continue
        explained = "502" in str(other) or "fetch failed" in str(result)
        unexplained += not explained
        print(f"{'  ' if explained else '! '}{name}: {result} through lb {other}")
    print(f"{len(straight)} tests, {unexplained} unexplained differences; sent again by lb: {retried or 'nothing'}")
    return unexplained


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    raise SystemExit(min(1, asyncio.run(run(Path(sys.argv[1])))))
