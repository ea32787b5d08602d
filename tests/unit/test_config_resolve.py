"""What a file comes to: defaults are core's own, every option arrives, refinements work out."""

from __future__ import annotations

import dataclasses

from lb.config.load import load_text
from lb.config.model.config import Rollout
from lb.config.resolve import World, release_plan, resolve
from lb.core.certificates import ClientAuth, Source, TlsServer
from lb.core.checks import CheckSpec, Expect, OnFailure
from lb.core.error_pages import ErrorPage, ErrorPages
from lb.core.lifecycle import Damping, Ejection, SlowStart
from lb.core.outlier import Outlier
from lb.core.quorum import Quorum
from lb.core.rollout import Bake, Plan, Thresholds
from lb.core.rotation import Panic, ServiceRules
from lb.core.targets import (
    AccessLog,
    Affinity,
    Balance,
    Breaker,
    Listener,
    Mirror,
    Preview,
    Retries,
    Route,
    Service,
    Sticky,
    Target,
    Timeouts,
    TlsClient,
)  # fmt: skip

RFC_9440 = (("Client-Cert", "certificate"), ("Client-Cert-Chain", "chain"))


def world(text: str) -> World:
    return resolve(load_text(text), 7)


def test_defaults_are_those_of_core() -> None:
    """One source for each default: a value that is tuned in `core` is the file's default at once."""
    made = world("backends: [127.0.0.1:5001]")
    snapshot = made.snapshot
    assert snapshot.version == 7
    assert snapshot.listeners == (Listener("0.0.0.0:8080"),)
    assert snapshot.routes == (Route("default"),)
    assert snapshot.rotations == ()
    assert snapshot.access_log == AccessLog()
    (service,) = snapshot.services
    target = Target("default/default/127.0.0.1:5001", "default", "default", "127.0.0.1", 5001)
    assert service == Service("default", service.pools)
    assert service.pools[0].targets == (target,)
    assert made.targets == {target.id: target}
    assert made.checks[target.id].readiness == CheckSpec()
    assert made.checks[target.id].liveness is None
    assert made.rules == {"default": ServiceRules()}
    assert made.mirrors == {}
    assert made.canary is None


def test_defaults_of_releases_and_restarts_are_those_of_core() -> None:
    assert release_plan("blue", "green", Rollout()) == Plan("blue", "green")
    assert Rollout().min_ready == Quorum()
    made = world("backends: [127.0.0.1:1]\nliveness: {path: /live, on_failure: {command: [true]}}")
    checks = made.checks["default/default/127.0.0.1:1"]
    assert checks.on_failure == OnFailure(command=("true",))
    assert checks.liveness == CheckSpec(protocol="http", path="/live", interval=10.0, rise=1)


EVERYTHING = """\
listeners:
  - bind: 127.0.0.1:0
    tls: {cert_file: /c, key_file: /k, client_ca_file: /ca}
    hsts: {max_age: 1d}
    protocols: [h2]
    proxy_protocol: [10.0.0.0/8]
    timeouts: {header: 1s, body: 2s, idle: 3s, send: 4s, half_close: 5s}
    limits: {request_line: 1KiB, header_block: 2KiB, header_count: 3, connections: 4, connections_per_client: 5,
             requests_per_connection: 6}
services:
  s:
    pools:
      blue: {targets: [{url: https://a:1, weight: 7, tls: {server_name: b, verify: false}}, https://a:2]}
      green: [unix:/run/x.sock]
    active: green
    balance: {policy: maglev, key: cookie:id}
    readiness:
      protocol: https
      path: /r?x=1
      method: HEAD
      headers: {Host: h, X-A: b}
      host: agent
      port: 81
      expect: {status: "200,204-205", headers: {X-Ok: yes}}
      ignore_1xx: true
      interval: 1s
      timeout: 900ms
      rise: 4
      fall: 5
      grace: 6s
      jitter: 20%
      fast_interval: 500ms
      down_interval: 10s
      max_body: 1KiB
      tls: {ca_file: /a, cert_file: /b, key_file: /c}
    liveness:
      command: [check, me]
      on_failure:
        {command: reboot, webhook: 'https://h/x', timeout: 1s, backoff: 2s, max_backoff: 3s, per_hour: 4, at_once: 5}
    retries: {attempts: 5, budget: 7%, budget_floor: 8, statuses: [502, 504], per_try: 9s, replay: 10KiB}
    timeouts:
      {queue: 10s, connect: 2s, send: 3s, response: 4s, read: 5s, total: 6s, tunnel: 7s, idle: 8s, drain: 9s,
       lifetime: 11s}
    breaker: {connections: 1, pending: 2, requests: 3, adaptive: true}
    outlier:
      {consecutive_failures: 1, consecutive_connect: 2, failure_share: 3%, deviations: 4, latency: 5,
       minimum: 6, rate_minimum: 7, peers: 8, window: 9s, base_ejection: 10s, connect_ejection: 11s, max_ejection: 12s,
       calm: 13s, max_ejected: 14%}
    panic_threshold: 50%
    panic: spread
    fallback: blue
    patience: 3s
    slow_start: {window: 10s, aggression: 2, floor: 5%}
    damping: {flaps: 1, half_life: 2s, hold: 3s, max_hold: 4s}
    tls: {server_name: c}
    host_header: internal
    via: false
    trailers: drop
    retry_after: 9
    sticky: {by: header:X-User, asset_fallback: true}
    affinity: {cookie: c, secret_file: /etc/s}
    previews: [{pool: blue, header: X-P, value: v}, {pool: blue, cookie: c}, {pool: green, host: g.example.org}]
    mirror: {pool: blue, percent: 12.5%, concurrency: 3, max_body: 4KiB}
    rollout:
      min_ready: 2
      steps: [5, 100]
      step_time: 1s
      analysis: {error_rate: 2%, latency: 3, ready: 50%, min_requests: 4, false_alarm: 5%}
      bake: {time: 10s, budget: 2%, short_window: 3s, long_window: 4s, burn: 5}
      freeze_on_fail: true
      after_restart: rollback
routes: [{service: s, host: "*.Example.org", path: /a, max_body: 1MiB, max_response: 2MiB, timeout: 2s,
          client_certificate: true, grpc_web: true, error_pages: {503: page.html}}]
trusted_proxies: [192.0.2.1, 'fd00::/8']
access_log: {format: combined, path: /var/log/x, sample: 50%}
canary: {url: https://gw:443, readiness: /}
"""


def test_every_option_arrives() -> None:
    made = world(EVERYTHING)
    snapshot = made.snapshot
    assert snapshot.listeners == (
        Listener(
            "127.0.0.1:0",
            TlsServer(
                (Source("/c", "/k"),), client=ClientAuth("required", "/ca"), alpn=("h2",), client_fields=RFC_9440
            ),
            ("10.0.0.0/8",),
            1.0,
            2.0,
            3.0,
            4.0,
            5.0,
            1024,
            2048,
            3,
            4,
            5,
            6,
            hsts="max-age=86400",
            http1=False,
            http2=True,
        ),
    )
    pages = ErrorPages((ErrorPage(503, 503, "page.html"),))
    route = Route("s", "*.example.org", "/a", 2**20, 2**21, 2.0, True, True, error_pages=pages)
    assert snapshot.routes == (route,)
    assert snapshot.trusted_proxies == ("192.0.2.1/32", "fd00::/8")
    assert snapshot.access_log == AccessLog("combined", "/var/log/x", 0.5)
    (service,) = snapshot.services
    assert service == Service(
        name="s",
        pools=service.pools,
        balance=Balance("maglev", "cookie:id"),
        retries=Retries(5, 0.07, 8, (502, 504), 9.0, 10240),
        timeouts=Timeouts(10.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 11.0),
        breaker=Breaker(1, 2, 3, True),
        sticky=Sticky("header:X-User", True),
        affinity=Affinity("c", "/etc/s"),
        previews=(Preview("blue", "X-P", "", "v"), Preview("blue", "", "c"), Preview("green", host="g.example.org")),
        retry_after=9,
        host_header="internal",
        via=False,
        trailers="drop",
    )
    assert [target for pool in service.pools for target in pool.targets] == [
        Target("s/blue/a:1", "s", "blue", "a", 1, 7, TlsClient(verify=False, server_name="b")),
        Target("s/blue/a:2", "s", "blue", "a", 2, 1, TlsClient(server_name="c")),
        Target("s/green/unix:/run/x.sock", "s", "green", "unix:/run/x.sock", 0),
    ]
    checks = made.checks["s/green/unix:/run/x.sock"]
    assert checks.readiness == CheckSpec(
        protocol="https",
        path="/r?x=1",
        method="HEAD",
        host="agent",
        port=81,
        headers=(("Host", "h"), ("X-A", "b")),
        expect=Expect(((200, 200), (204, 205)), "", (("X-Ok", "yes"),)),
        ignore_1xx=True,
        interval=1.0,
        timeout=0.9,
        rise=4,
        fall=5,
        grace=6.0,
        jitter=0.2,
        fast_interval=0.5,
        down_interval=10.0,
        max_body=1024,
        tls=TlsClient(ca_file="/a", cert_file="/b", key_file="/c"),
    )
    assert checks.liveness is not None and checks.liveness.command == ("check", "me")
    assert checks.on_failure == OnFailure(("/bin/sh", "-c", "reboot"), "https://h/x", 1.0, 2.0, 3.0, 4, 5)
    assert made.rules["s"] == ServiceRules(
        SlowStart(10.0, 2.0, 0.05),
        Damping(1, 2.0, 3.0, 4.0),
        Ejection(base=10.0, longest=12.0, connect_base=11.0, calm=13.0),
        Outlier(
            consecutive_failures=1,
            consecutive_connect=2,
            failure_share=0.03,
            minimum=6,
            rate_minimum=7,
            window=9.0,
            peers=8,
            deviations=4.0,
            latency=5.0,
            max_ejected=0.14,
        ),
        Panic(0.5, "spread"),
        "blue",
        3.0,
    )
    assert made.mirrors == {"s": Mirror("blue", 12.5, 3, 4096)}
    assert made.canary is not None
    assert made.canary[0].id == "none/none/gw:443"
    assert (made.canary[1].protocol, made.canary[1].path) == ("https", "/")
    assert release_plan("blue", "green", made.config.services["s"].rollout, actor="me") == Plan(
        "blue", "green", (5, 100), 1.0, Thresholds(0.02, 3.0, 0.5, 4, 0.05), Bake(10.0, 0.02, 3.0, 4.0, 5.0), True,
        "rollback", "me",
    )  # fmt: skip


def test_without_outlier_detection_nothing_is_counted() -> None:
    made = world("services: {s: {pools: {a: [h:1]}, outlier: {enabled: false}}}")
    assert not made.snapshot.services[0].passive
    assert made.rules["s"].outlier.off


def test_no_option_of_core_is_forgotten() -> None:
    """A field that core gets must be settable in the file: each differs from its default in the file above."""
    made = world(EVERYTHING)
    service = made.snapshot.services[0]
    # `redirect` belongs to a listener without TLS; `test_config_https` has it, and `test_config_routes` what a route
    # matches and changes. Maintenance is no setting, but an order.
    elsewhere = ("redirect", "match", "steps", "answer", "split", "split_by", "fallback", "maintenance")
    for value in (
        made.snapshot.listeners[0],
        made.snapshot.routes[0],
        made.snapshot.access_log,
        made.rules["s"].slow_start,
        made.rules["s"].damping,
        made.rules["s"].ejection,
        made.rules["s"].outlier,
        made.rules["s"].panic,
        service.balance,
        service.retries,
        service.timeouts,
        service.breaker,
        service.sticky,
        made.mirrors["s"],
        made.checks["s/blue/a:1"].on_failure,
        release_plan("a", "b", made.config.services["s"].rollout),
    ):
        assert dataclasses.is_dataclass(value) and not isinstance(value, type)
        for field in dataclasses.fields(value):
            if field.name not in (*elsewhere, "actor", "kind", "name") and field.default is not dataclasses.MISSING:
                assert getattr(value, field.name) != field.default, f"{type(value).__name__}.{field.name}"


def test_a_target_refines_its_pool_and_the_pool_its_service() -> None:
    made = world("""\
services:
  s:
    pools:
      a:
        targets: [127.0.0.1:1, {url: 127.0.0.1:2, readiness: {interval: 9s}, liveness: /t}]
        readiness: {port: 81, timeout: 500ms}
      b: {targets: [127.0.0.1:3], readiness: tcp}
      c: {targets: [127.0.0.1:4], readiness: {grpc_service: g}, liveness: {fall: 7}}
    active: a
    readiness: {path: /r, interval: 5s, fall: 2}
    liveness: {path: /l}
""")
    first, second, third, fourth = made.checks.values()
    assert (first.readiness.path, first.readiness.port, first.readiness.timeout) == ("/r", 81, 0.5)
    assert (first.readiness.interval, first.readiness.fall) == (5.0, 2)
    assert (second.readiness.interval, second.readiness.port, second.readiness.path) == (9.0, 81, "/r")
    assert second.liveness is not None and second.liveness.path == "/t"
    assert third.readiness.protocol == "tcp"
    assert fourth.readiness.protocol == "grpc"
    assert fourth.liveness is not None and (fourth.liveness.path, fourth.liveness.fall) == ("/l", 7)


def test_an_http_check_speaks_to_the_target_as_its_clients_do() -> None:
    def checked(url: str, check: str) -> CheckSpec:
        return next(iter(world(f"backends: ['{url}']\nreadiness: {check}\n").checks.values())).readiness

    assert checked("https://a:1", "/r").protocol == "https"
    assert checked("https://a:1", "/r").tls == TlsClient()
    assert checked("https://a:1", "{protocol: http, port: 81}").protocol == "http"
    assert checked("http://a:1", "{protocol: https, port: 81, tls: {verify: false}}").tls == TlsClient(verify=False)
    assert checked("https://a:1", "{protocol: grpc}").tls == TlsClient()
    assert checked("http://a:1", "{protocol: grpc}").tls is None
    assert checked("https://a:1", "tcp").tls is None


def test_a_fallback_is_used_only_when_it_is_chosen() -> None:
    text = "services: {s: {pools: {a: [h:1], b: [h:2]}, active: a, %s}}"
    assert world(text % "fallback: b").rules["s"].fallback == "b"
    assert world(text % "fallback: b").rules["s"].panic.choice == "fallback"
    assert world(text % "retry_after: 1").rules["s"].panic.choice == "fail"


def test_the_detection_time_of_a_service_is_that_of_its_slowest_check() -> None:
    made = world("""\
services:
  s: {pools: {a: [h:1, {url: h:2, readiness: {interval: 10s}}]}}
  t: {pools: {a: [h:1, {url: h:2, readiness: none}]}}
routes: [{service: s}, {service: t, path: /t}]
""")
    assert made.detections["s"].worst == 31.0
    assert "t" not in made.detections  # nobody looks at one of its targets


# --- other endpoints -------------------------------------------------------------------------------------------------

POOLS = """\
services:
  s: {{pools: {{a: [{}], b: [h:9]}}, active: a, readiness: {{interval: 2s}}}}
  t: {{pools: {{a: [h:8]}}}}
routes: [{{service: s}}, {{service: t, path: /t}}]
"""


def test_a_pool_with_other_endpoints_is_the_world_of_a_file_that_has_them() -> None:
    old = world(POOLS.format("h:1, h:2"))
    new = world(POOLS.format("h:2, {url: h:3, readiness: {interval: 9s}}"))
    assert old.detections != new.detections
    made = old.with_endpoints("s", "a", new.endpoints("s", "a"))
    assert dataclasses.replace(made, config=new.config) == new
    assert made.with_endpoints("s", "a", old.endpoints("s", "a")) == old


def test_a_replaced_endpoint_is_marked_and_adds_nothing_to_the_detection_time() -> None:
    old = world(POOLS.format("{url: h:1, readiness: {interval: 9s}}"))
    new = world(POOLS.format("h:2"))
    [former] = old.endpoints("s", "a")
    made = new.with_endpoints("s", "a", (*new.endpoints("s", "a"), dataclasses.replace(former, replaced=True)))
    assert made.snapshot.services[0].pools[0].replaced == ("s/a/h:1",)
    assert made.detections == new.detections and made.checks.keys() == made.targets.keys()
    assert made.endpoints("s", "a")[1].replaced


def test_a_pool_may_have_no_endpoint() -> None:
    made = world(POOLS.format("h:1")).with_endpoints("t", "a", ())
    assert "t" not in made.detections and "t/a/h:8" not in made.checks
