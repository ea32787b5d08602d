"""A plain listener that sends its clients to the one with TLS, through a reload and with a real client."""

from __future__ import annotations

import http.client
import shutil
import ssl
import subprocess

import pytest
import trustme

from tests.support.eventually import eventually
from tests.support.ports import free_port
from tests.support.stage import Stage, ask


def redirect_of(port: int, path: str = "/x?y=1", method: str = "GET") -> tuple[int, str]:
    """Status and Location of an answer."""
    connection = http.client.HTTPConnection("localhost", port, timeout=10)
    connection.request(method, path)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status, answer.getheader("Location", "")


def config(stage: Stage, plain: str, secure: str) -> str:
    [backend] = stage.pool("blue", 1)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(stage.folder / "ca.pem")
    issued = authority.issue_cert("localhost")
    issued.private_key_and_cert_chain_pem.write_to_path(stage.folder / "both.pem")
    (stage.folder / "both.pem").chmod(0o600)
    return (
        f"listeners:\n  - {plain}\n"
        f"  - {{bind: '{secure}', tls: {{cert_file: both.pem, key_file: both.pem}}, hsts: {{max_age: 1d}}}}\n"
        f"admin: {{bind: 127.0.0.1:0}}\nstate_dir: ./state\naccess_log: off\n"
        f"services: {{s: {{pools: {{blue: ['{backend.url}']}}, readiness: /health/readiness}}}}\n"
    )


def test_a_client_comes_to_https_and_a_reload_changes_it_for_kept_connections_too(stage: Stage) -> None:
    plain, secure = free_port(), free_port()
    text = config(stage, f"{{bind: '127.0.0.1:{plain}', redirect: https}}", f"127.0.0.1:{secure}")
    path = stage.file(text)
    lb = stage.start(path)
    assert redirect_of(plain) == (308, f"https://localhost:{secure}/x?y=1")
    assert redirect_of(plain, method="POST") == (308, f"https://localhost:{secure}/x?y=1")

    kept = http.client.HTTPConnection("localhost", plain, timeout=10)
    kept.request("GET", "/greeting")
    assert kept.getresponse().read().startswith(b"308 ")
    path.write_text(text.replace(", redirect: https", ""))
    assert lb.cli("reload").returncode == 0
    eventually(lambda: redirect_of(plain, "/greeting")[0] == 200)
    eventually(lambda: over(kept), what="the connection that was redirected ends")
    assert ask(f"http://localhost:{plain}/greeting").status == 200

    path.write_text(text.replace("redirect: https", "redirect: {to_port: 443}"))
    assert lb.cli("reload").returncode == 0
    eventually(lambda: redirect_of(plain) == (308, "https://localhost/x?y=1"))
    assert lb.metrics()['lb_rejected_total{reason="https_redirect"}'] >= 4


def over(connection: http.client.HTTPConnection) -> bool:
    """Whether a kept connection has ended."""
    try:
        connection.sock.settimeout(0.01)
        return connection.sock.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def test_the_port_that_the_system_chose_is_named(stage: Stage) -> None:
    lb = stage.start(stage.file(config(stage, "{bind: '127.0.0.1:0', redirect: https}", "localhost:0")))
    plain, secure = (int(one["address"].rpartition(":")[2]) for one in lb.status()["listeners"])
    assert redirect_of(plain) == (308, f"https://localhost:{secure}/x?y=1")
    context = ssl.create_default_context(cafile=stage.folder / "ca.pem")
    connection = http.client.HTTPSConnection("localhost", secure, context=context, timeout=10)
    connection.request("GET", "/greeting")
    answer = connection.getresponse()
    assert (answer.status, answer.getheader("Strict-Transport-Security")) == (200, "max-age=86400")
    connection.close()


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl_follows_with_its_body(stage: Stage) -> None:
    lb = stage.start(stage.file(config(stage, "{bind: '127.0.0.1:0', redirect: https}", "localhost:0")))
    plain = lb.status()["listeners"][0]["address"].rpartition(":")[2]
    command = ["curl", "-sS", "-L", "--cacert", str(stage.folder / "ca.pem"), "-d", "a body", "-o", "/dev/null"]
    command += ["-w", "%{num_redirects} %{scheme} %{method}", f"http://localhost:{plain}/greeting"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout.upper() == "1 HTTPS POST", done.stderr
