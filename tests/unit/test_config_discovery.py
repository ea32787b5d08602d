"""Sources of targets in the file: what may stand there, what is wrong, and what a change of it is called."""

from __future__ import annotations

from pathlib import Path

import pytest

from lb.config.diff import diff
from lb.config.load import load, load_text
from lb.config.model.config import Config
from lb.config.resolve import resolve
from lb.config.yaml.problems import ConfigError
from lb.core.detection import detection


def of(pool: str) -> Config:
    return load_text(f"services: {{web: {{pools: {{main: {{{pool}}}}}, readiness: /ready}}}}", base="/etc/lb")


def test_a_source_with_all_its_defaults() -> None:
    pool = of("discover: {file: found.yaml}").services["web"].pools["main"]
    assert pool.targets == [] and pool.removal_guard == 0.5 and pool.discover is not None
    assert (pool.discover.kind(), pool.discover.title()) == ("file", "file /etc/lb/found.yaml")
    dns = of("discover: {dns: {name: Web.Test., port: 80}}").services["web"].pools["main"].discover
    assert dns is not None and dns.dns is not None and (dns.kind(), dns.title()) == ("dns", "dns web.test")
    assert (dns.dns.kind(), dns.dns.timeout, dns.dns.min_refresh, dns.dns.max_refresh) == ("A+AAAA", 1.0, 1.0, 60.0)


def test_a_name_of_a_service_is_asked_for_by_its_records() -> None:
    discover = of("discover: {dns: {name: _http._tcp.web.test}}").services["web"].pools["main"].discover
    assert discover is not None and discover.dns is not None and discover.dns.kind() == "SRV"


def test_a_service_of_kubernetes_and_its_port() -> None:
    for port, read in (("http", "http"), ("8080", "8080"), ("'08080'", "8080")):
        discover = of(f"discover: {{kubernetes: {{service: web, namespace: prod, port: {port}}}}}")
        found = discover.services["web"].pools["main"].discover
        assert found is not None and found.kubernetes is not None and found.kubernetes.port == read
        assert (found.kind(), found.title()) == ("kubernetes", "kubernetes prod/web")


def test_a_service_of_consul_with_all_its_defaults() -> None:
    found = of("discover: {consul: {service: web}}").services["web"].pools["main"].discover
    assert found is not None and found.consul is not None and found.over_tls() == []
    assert (found.kind(), found.title()) == ("consul", "consul web")
    assert (found.consul.address, found.consul.wait) == ("http://127.0.0.1:8500", 30.0)
    assert found.consul.warning and not found.consul.stale and found.consul.tags == []
    addresses = ("https://consul.internal:8501", "http://[::1]:8500", "unix:///run/consul/http.sock")
    for address in addresses:
        found = (
            of(f"discover: {{consul: {{service: web, address: '{address}'}}}}").services["web"].pools["main"].discover
        )
        assert found is not None and found.consul is not None and found.consul.address == address


def test_servers_have_a_port_or_the_usual_one() -> None:
    resolvers = "resolvers: [127.0.0.1, '127.0.0.1:5353', '::1', '[::1]:5353']"
    discover = of(f"discover: {{dns: {{name: a.test, port: 1, {resolvers}}}}}").services["web"].pools["main"].discover
    assert discover is not None and discover.dns is not None
    assert discover.dns.resolvers == ["127.0.0.1:53", "127.0.0.1:5353", "[::1]:53", "[::1]:5353"]


@pytest.mark.parametrize(
    ("pool", "said"),
    [
        ("", "'targets' is missing in services.web.pools.main"),
        ("targets: [a:1], removal_guard: 10%", "removal_guard is about found targets"),
        ("discover: {}", "nothing says where; a pool has one source"),
        ("discover: {file: x, dns: {name: a.test, port: 1}}", "dns and file are given; a pool has one source"),
        ("discover: {dns: {name: a.test}}", "no port is given"),
        ("discover: {dns: {name: _http._tcp.a.test, port: 80}}", "the SRV records of _http._tcp.a.test name ports"),
        ("discover: {dns: {name: a.test, port: 1, min_refresh: 2m}}", "max_refresh: 1m is shorter than `min_refresh`"),
        ("discover: {dns: {name: 'a..test', port: 1}}", "'a..test' is not a domain name"),
        ("discover: {dns: {name: 'a b', port: 1}}", "'a b' is not a domain name"),
        (
            "discover: {dns: {name: a.test, port: 1, resolvers: [ns.test]}}",
            "'ns.test' is not the address of a DNS server",
        ),
        (
            "discover: {dns: {name: a.test, port: 1, resolvers: [':53']}}",
            "0.0.0.0:53 is every address, and no server's",
        ),
        ("discover: {dns: {name: a.test, port: 1, type: TXT}}", "'TXT' is not one of the choices"),
        ("discover: {consul: {service: ''}}", "service: the text is empty"),
        ("discover: {consul: {}}", "'service' is missing"),
        ("discover: {consul: {service: a, tags: ['']}}", "the text is empty"),
        ("discover: {consul: {service: a, address: '127.0.0.1:8500'}}", "is not the address of an agent"),
        ("discover: {consul: {service: a, address: 'http://a:8500/v1'}}", "is not the address of an agent"),
        ("discover: {consul: {service: a, wait: 11m}}", "wait"),
        ("discover: {consul: {service: a, wait: 100ms}}", "wait"),
        ("discover: {consul: {service: a, tls: {}}}", "http://127.0.0.1:8500 is spoken to without TLS"),
        ("discover: {consul: {service: a, address: 'https://a:1', tls: {key_file: k}}}", "'cert_file' is missing"),
        ("discover: {docker: {label: ''}}", "label: the text is empty"),
        ("discover: {docker: {label: a, socket: /run/docker.sock}}", "is not the address of an engine"),
        ("discover: {docker: {label: a, tls: {}}}", "unix:///var/run/docker.sock is spoken to without TLS"),
        ("discover: {docker: {label: a, socket: 'tcp://e:2376', tls: {cert_file: c}}}", "'key_file' is missing"),
        ("discover: {kubernetes: {service: Web}}", "'Web' is not a name of Kubernetes"),
        ("discover: {kubernetes: {service: web, namespace: ''}}", "'' is not a name of Kubernetes"),
        ("discover: {kubernetes: {service: web, port: 70000}}", "70000 is no port"),
        ("discover: {kubernetes: {service: web, port: a b}}", "'a b' is no port's name"),
        ("discover: {kubernetes: {service: web, context: a}}", "context chooses one of a kubeconfig file"),
        ("discover: {python: {source: registry}}", "'registry' is not the name of a function"),
        ("discover: {python: {source: 'a b:c'}}", "'a b:c' is not the name of a function"),
        ("discover: {python: {source: 'a:b', timeout: 0s}}", "timeout"),
        ("discover: {dsn: {name: a.test}}", "unknown key 'dsn'"),
    ],
)
def test_what_is_wrong_with_a_source(pool: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        of(pool)
    assert said in " ".join(str(error.value).split())


@pytest.mark.parametrize(
    "source",
    [
        "{docker: {label: a, socket: 'tcp://e:2376', tls: {ca_file: none.pem}}}",
        "{consul: {service: a, address: 'https://e:8501', tls: {ca_file: none.pem}}}",
    ],
)
def test_files_for_a_source_over_tls_are_looked_at(tmp_path: Path, source: str) -> None:
    path = tmp_path / "lb.yaml"
    path.write_text(f"services: {{web: {{pools: {{main: {{discover: {source}}}}}, readiness: /ready}}}}")
    with pytest.raises(ConfigError, match=r"authorities cannot be read from"):
        load(path)


def test_the_time_of_detection_is_known_before_any_target_is() -> None:
    world = resolve(of("discover: {file: found.yaml}"), 0)
    assert world.targets == {} and world.detections["web"] == detection(world.found_checks["web", "main"].readiness)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("targets: [a:1]", "discover: {file: x}", "targets are found by none → file /etc/lb/x"),
        ("discover: {file: x}", "discover: {file: y}", "targets are found by file /etc/lb/x → file /etc/lb/y"),
        ("targets: [a:1], discover: {file: x}", "targets: [a:1]", "found targets that are not in the file drain"),
        ("discover: {file: x}", "discover: {file: x}, removal_guard: 25%", "removal_guard 50% → 25%"),
    ],
)
def test_a_change_of_a_source_is_said(old: str, new: str, said: str) -> None:
    changes = diff(resolve(of(old), 0), resolve(of(new), 0)).changes
    assert any(said in str(change) for change in changes), [str(change) for change in changes]


def test_the_same_source_is_no_change() -> None:
    assert not diff(resolve(of("discover: {file: x}"), 0), resolve(of("discover: {file: x}"), 0)).changes
