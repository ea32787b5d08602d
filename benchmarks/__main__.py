"""`python -m benchmarks`: run scenarios side by side and say how lb compares."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks import report, servers
from benchmarks.flat import flat
from benchmarks.rounds import Measured, run
from benchmarks.scenarios import SCENARIOS
from benchmarks.servers import PEERS, Server, Setup


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", action="append", choices=[*SCENARIOS, "flat"], help="a scenario; again for more")
    parser.add_argument("--peers", default="lb,nginx,haproxy", help="of " + ",".join(PEERS))
    parser.add_argument("--rounds", type=int, default=10, help="interleaved rounds (10)")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a round (1)")
    parser.add_argument("--workers", type=int, default=1, help="workers of each proxy (1)")
    parser.add_argument("--no-log", action="store_true", help="access logs off everywhere (else JSON everywhere)")
    parser.add_argument("--quick", action="store_true", help="3 rounds of the two main scenarios")
    parser.add_argument("--out", type=Path, help="folder for results.json and ratios.svg")
    options = parser.parse_args()
    names = options.only or (["get-32", "get-256"] if options.quick else list(SCENARIOS))
    rounds = 3 if options.quick else options.rounds
    results: dict[str, dict[str, Measured]] = {}
    with tempfile.TemporaryDirectory(prefix="lb-bench-") as temporary:
        folder = Path(temporary)
        folder.chmod(0o755)
        if "flat" in names:
            names.remove("flat")
            print("\n".join(flat(folder, rounds, options.seconds)), flush=True)
        if names:
            ports = [servers.free_port() for _ in range(4)]
            origin = servers.backend(folder, ports)
            running: dict[str, Server] = {}
            try:
                setup = Setup(folder, log=not options.no_log, workers=options.workers, backends=ports)
                for peer in options.peers.split(","):
                    running[peer] = PEERS[peer](setup)
                for name in names:
                    scenario = SCENARIOS[name]
                    chosen = {peer: server for peer, server in running.items() if peer in scenario.peers}
                    results[name] = run(
                        chosen, rounds, lambda server, s=scenario: s.one(server, folder, options.seconds)
                    )  # type: ignore[misc]
                    print("\n".join(report.table(scenario.text, results[name], scenario.measure)), flush=True)
            finally:
                for server in running.values():
                    servers.stop(server.process)
                servers.stop(origin)
    if options.out is not None and results:
        options.out.mkdir(parents=True, exist_ok=True)
        report.save(results, options.out / "results.json")
        if not report.picture(results, options.out / "ratios.svg"):
            print("no picture: matplotlib is not installed (pip install lb[bench])", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
