"""`python -m benchmarks.steps`: what five steps of a route cost a request, beside a bare route, in microseconds.

Two lbs run at once, each with one worker on the first processor. One has a bare route for everything. The other has a
route that is matched by a header, and has four steps: a JWT (whose result is kept after the first request), a rate
limit, a changed prefix and a header that is set with a variable. Both get the same requests, in interleaved rounds. Of
a request that its connection repeats, steps remember what they made; with `--other-paths` no request is repeated.
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median, quantiles

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from benchmarks import report
from benchmarks.load import Result, wrk
from benchmarks.origin import origin
from benchmarks.processes import PROXY_CPU, Server, await_answer, children, free_port, start, stop
from benchmarks.rounds import Round, run

CONNECTIONS = 32
#: For wrk: a thousand paths in turn, so that each connection sends another one than before.
_OTHER_PATHS = """
local turn = 0
function request()
  turn = turn % 1000 + 1
  return wrk.format(nil, "/v1/x" .. turn)
end
"""
BARE = "  - {path: /, service: all}"
STEPS = {
    "match by header": '  - {match: {path: /v1, headers: {x-beta: "1"}}, service: all}\n' + BARE,
    "rate limit": "  - {path: /, service: all, steps: [{rate_limit: {rate: 1000000/s, key: client}}]}",
    "rate limit, without fields": (
        "  - {path: /, service: all, steps: [{rate_limit: {rate: 1000000/s, key: client, fields: false}}]}"
    ),
    "header set": '  - {path: /, service: all, steps: [{request_headers: {set: {X-Client: "{client_ip}"}}}]}',
    "prefix strip": "  - {path: /, service: all, steps: [{strip_prefix: /v1}]}",
    "JWT": "  - {path: /, service: all, steps: [{jwt: {jwks_file: keys.json}}]}",
    "all five": (
        '  - match: {path: /v1, headers: {x-beta: "1"}}\n'
        "    service: all\n"
        "    steps:\n"
        "      - rate_limit: {rate: 1000000/s, key: client, fields: false}\n"
        "      - jwt: {jwks_file: keys.json}\n"
        "      - strip_prefix: /v1\n"
        '      - request_headers: {set: {X-Client: "{client_ip}"}}\n' + BARE
    ),
}


def main() -> int:
    options = _options()
    print(" · ".join(f"{key} {value}" for key, value in report.machine().items()), end="\n\n", flush=True)
    print("| steps | bare, µs | with, µs | more, µs [quartiles] | of a bare request |", flush=True)
    print("| --- " * 5 + "|", flush=True)
    with tempfile.TemporaryDirectory(prefix="lb-bench-") as temporary:
        folder = Path(temporary)
        folder.chmod(0o755)  # nginx's workers may be somebody else
        script = _script(folder) + (_OTHER_PATHS if options.other_paths else "")
        behind, (target,) = origin(folder)
        try:
            for name in options.only or STEPS:
                bare = _lb(folder, target, BARE, options.checkout)
                stepped = _lb(folder, target, STEPS[name], options.checkout)
                try:
                    one = partial(_one, folder=folder, script=script, seconds=options.seconds)
                    found = run({"bare": bare, "steps": stepped}, options.rounds, one, folder)
                finally:
                    stop(bare.process)
                    stop(stepped.process)
                _tell(name, found["bare"].rounds, found["steps"].rounds)
        finally:
            stop(behind)
    return 0


def _one(server: Server, *, folder: Path, script: str, seconds: float) -> Result:
    found = wrk(f"{server.url}/v1/x", CONNECTIONS, seconds, folder, script=script)
    if found.errors:
        raise RuntimeError(f"{found.errors} of {found.requests} requests were refused")
    return found


def _tell(name: str, bare: list[Round], stepped: list[Round]) -> None:
    """A line: CPU time for each request, and the difference of rounds that stand side by side."""
    costs = [[1e6 * one.cpu / one.requests for one in rounds] for rounds in (bare, stepped)]
    more = [after - before for before, after in zip(*costs, strict=True)]
    low, _, high = quantiles(more, n=4)
    ratio = median(after / before for before, after in zip(*costs, strict=True))
    print(
        f"| {name} | {median(costs[0]):.1f} | {median(costs[1]):.1f} | {median(more):.1f} [{low:.1f}–{high:.1f}] "
        f"| {ratio:.2f} |",
        flush=True,
    )


def _lb(folder: Path, target: str, routes: str, checkout: Path) -> Server:
    port = free_port()
    config = folder / f"lb-{port}.yaml"
    config.write_text(
        f"""
listeners: ['127.0.0.1:{port}']
admin: {{bind: 127.0.0.1:0}}
state_dir: {folder}/lb-{port}.state
access_log: {{path: {folder}/lb-{port}.log}}
services: {{all: {{pools: {{all: ['http://{target}']}}, readiness: none}}}}
routes:
{routes}
  - {{path: /ready, service: all}}
"""
    )
    environ = {"PYTHONPATH": str(checkout.resolve())}
    command = [sys.executable, "-m", "lb", "run", str(config), "--workers", "1"]
    process = start(command, {PROXY_CPU}, folder, f"lb-{port}", environ)
    server = Server("lb", port, process, lambda: children(process.pid))
    try:
        await_answer(f"{server.url}/ready", process)
    except RuntimeError as error:
        stop(process)
        raise RuntimeError(f"{error}\n{(folder / f'lb-{port}.out').read_text()[-2000:]}") from None
    return server


# --- a token ---------------------------------------------------------------------------------------------------------


def _script(folder: Path) -> str:
    """wrk's script for requests with a header and a token; the token's key is put into the folder."""
    key = ec.generate_private_key(ec.SECP256R1())
    point = key.public_key().public_numbers()
    x, y = (_b64(value.to_bytes(32, "big")) for value in (point.x, point.y))
    (folder / "keys.json").write_text(json.dumps({"keys": [{"kty": "EC", "crv": "P-256", "x": x, "y": y}]}))
    claims = {"sub": "bench", "exp": int(time.time()) + 86400}
    signed = ".".join(_b64(json.dumps(part).encode()) for part in ({"alg": "ES256"}, claims))
    r, s = decode_dss_signature(key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
    token = f"{signed}.{_b64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"
    fields = {"X-Beta": "1", "Authorization": f"Bearer {token}"}
    return "".join(f'wrk.headers["{name}"] = "{value}"\n' for name, value in fields.items())


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.steps", description=__doc__)
    parser.add_argument("--only", action="append", choices=list(STEPS), help="again for more; else all")
    parser.add_argument("--other-paths", action="store_true", help="each request has another path than the one before")
    parser.add_argument("--rounds", type=int, default=20, help="interleaved rounds (20), after one that warms up")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a round (1)")
    here = Path(__file__).parent.parent
    parser.add_argument("--checkout", type=Path, default=here, help="lb's source, or build/compiled")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
