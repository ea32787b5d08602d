"""The front door of examples/company: every behaviour of its one file, through a real lb that all tests share."""

from __future__ import annotations

import base64
import gzip
import http.client
import json
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from websockets.sync.client import connect
from websockets.sync.server import ServerConnection, serve

from tests.support.certificates import Authority
from tests.support.eventually import eventually
from tests.support.ports import free_ports
from tests.support.stage import Answer, Lb, Stage

COMPANY = Path(__file__).resolve().parents[2] / "examples" / "company"
#: Clients with this address are in the office.
OFFICE, ELSEWHERE = "127.0.0.2", "127.0.0.1"
BROWSER = {"Accept": "text/html,*/*;q=0.8"}
LOGIN = {"Authorization": "Basic " + base64.b64encode(b"anna:open sesame").decode()}


class Target(ThreadingHTTPServer):
    """Says what it has got, in more bytes than compression begins at."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, name: str, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Echo)
        self.name = name
        self.tls = tls
        self.seen: list[str] = []  # paths, but for checks
        self.address = f"127.0.0.1:{self.server_address[1]}"
        self.url = f"http{'s' if tls else ''}://{self.address}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away, or refuses the certificate, is no one's business."""


class Echo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Target

    def setup(self) -> None:
        if self.server.tls is not None:  # in the connection's own thread
            self.request.settimeout(20)
            self.request = self.server.tls.wrap_socket(self.request, server_side=True)
        super().setup()

    def answer(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        self.rfile.read(length)
        if self.path != "/health/readiness":
            self.server.seen.append(f"{self.command} {self.path}")
        got = {name.lower(): value for name, value in self.headers.items()}
        body = json.dumps({"name": self.server.name, "path": self.path, "headers": got, "pad": "x" * 2000}).encode()
        self.send_response(302 if self.path.startswith("/moved") else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Location", "/users/1")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_OPTIONS = answer  # noqa: N815 - names of the base class

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


class Company:
    """The running front door, its targets, and clients of it."""

    def __init__(self, lb: Lb, plain: int, secure: int, authority: Authority, targets: dict[str, Target]) -> None:
        self.lb, self.plain, self.secure, self.targets = lb, plain, secure, targets
        self.tls = ssl.create_default_context(cadata=authority.pem.decode())

    def ask(
        self,
        path: str,
        host: str = "www.example.org",
        method: str = "GET",
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        client: str = ELSEWHERE,
    ) -> Answer:
        """One request over TLS, with the certificate verified for the host."""
        raw = socket.create_connection(("127.0.0.1", self.secure), 20, source_address=(client, 0))
        connection = http.client.HTTPSConnection(host, timeout=20)
        with self.tls.wrap_socket(raw, server_hostname=host) as connection.sock:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return Answer(answer.status, dict(answer.headers), answer.read())

    def name(self, path: str, **options: object) -> str:
        """The target that answers."""
        answer = self.ask(path, **options)  # type: ignore[arg-type]
        assert answer.status == 200, answer.body
        return str(answer.json["name"])


def echo(connection: ServerConnection) -> None:
    for message in connection:
        connection.send(message)


def server_context(authority: Authority, folder: Path, name: str) -> ssl.SSLContext:
    authority.issue(name).write(folder, name)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
    return context


@pytest.fixture(scope="module")
def company(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Company]:
    folder = tmp_path_factory.mktemp("company") / "company"
    shutil.copytree(COMPANY, folder)
    public, own, foreign = Authority("public"), Authority("company"), Authority("foreign")
    public.issue("www.example.org", "api.example.org", "example.org").write(folder / "certs", "www")
    (folder / "company-ca.pem").write_bytes(own.pem)
    office = server_context(own, folder / "keys", "office.internal")
    impostor = server_context(foreign, folder / "foreign", "office.internal")
    names = ("web_blue_1", "web_blue_2", "web_green_1", "web_green_2", "api_1", "api_2", "api_canary_1", "api_canary_2")
    targets = {name: Target(name) for name in names}
    targets |= {"office_1": Target("office_1", office), "office_2": Target("office_2", impostor)}
    chats = [serve(echo, "127.0.0.1", 0) for _ in range(2)]
    for chat in chats:
        threading.Thread(target=chat.serve_forever, daemon=True).start()
    plain, secure = free_ports(2)
    with pytest.MonkeyPatch.context() as patch, Stage(folder) as stage:
        for name, target in targets.items():
            patch.setenv(name.upper(), target.url)
        for number, chat in enumerate(chats, 1):
            patch.setenv(f"CHAT_{number}", f"http://127.0.0.1:{chat.socket.getsockname()[1]}")
        places = {"HTTP": f"127.0.0.1:{plain}", "HTTPS": f"127.0.0.1:{secure}", "ADMIN": "127.0.0.1:0"}
        for key, value in {**places, "OFFICE_NETWORK": f"{OFFICE}/32"}.items():
            patch.setenv(key, value)
        lb = stage.start(folder / "backends.yaml")
        made = Company(lb, plain, secure, public, targets)
        good = [target.address for name, target in targets.items() if name != "office_2"]
        eventually(lambda: all(lb.state(each) == "ready" for each in good), 60.0, "all targets are ready")
        yield made
    for target in targets.values():
        target.shutdown()
        target.server_close()
    for chat in chats:
        chat.shutdown()


def test_it_is_one_file_under_120_lines() -> None:
    assert len((COMPANY / "backends.yaml").read_text().splitlines()) < 120


def test_http_goes_to_https(company: Company) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", company.plain, timeout=20)
    connection.request("GET", "/a?b=1", headers={"Host": "www.example.org"})
    answer = connection.getresponse()
    connection.close()
    assert (answer.status, answer.getheader("Location")) == (308, f"https://www.example.org:{company.secure}/a?b=1")


def test_https_with_hsts_on_every_host(company: Company) -> None:
    for host, path in (("www.example.org", "/"), ("api.example.org", "/api/v1/x"), ("example.org", "/")):
        answer = company.ask(path, host)
        assert answer.headers["Strict-Transport-Security"] == "max-age=31536000; includeSubDomains"


def test_redirects(company: Company) -> None:
    answer = company.ask("/x?y=1", "example.org")
    assert (answer.status, answer.headers["Location"]) == (308, "https://www.example.org/x?y=1")
    answer = company.ask("/shop/shoes?size=9")
    assert answer.status == 301
    assert answer.headers["Location"].endswith("/store/shoes?size=9")
    assert company.name("/shopping").startswith("web"), "a prefix ends at a segment's border"


def test_the_website_is_compressed_and_careful(company: Company) -> None:
    answer = company.ask("/", headers={"Accept-Encoding": "gzip"})
    assert answer.headers["Content-Encoding"] == "gzip"
    assert json.loads(gzip.decompress(answer.body))["path"] == "/"
    assert "Accept-Encoding" in answer.headers["Vary"]
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_blue_and_green(company: Company) -> None:
    seen = {company.name("/") for _ in range(12)}
    assert seen == {"web_blue_1", "web_blue_2"}
    done = company.lb.cli("switch", "web", "green", "--steps", "100", timeout=60)
    assert done.returncode == 0, done.stderr
    assert {company.name("/") for _ in range(12)} == {"web_green_1", "web_green_2"}
    done = company.lb.cli("rollback", "web", timeout=60)
    assert done.returncode == 0, done.stderr
    assert company.name("/").startswith("web_blue")


def test_a_canary_by_cookie(company: Company) -> None:
    def pools(cookie: str) -> set[str]:
        headers = {"Cookie": cookie} if cookie else {}
        return {company.name("/api/v1/x", host="api.example.org", headers=headers)[:-2] for _ in range(6)}

    assert pools("") == pools("canary=0") == {"api"}
    assert pools("a=b; canary=1") == {"api_canary"}


def test_websockets(company: Company) -> None:
    raw = socket.create_connection(("127.0.0.1", company.secure), 20)
    with connect("wss://www.example.org/chat", sock=raw, ssl=company.tls, open_timeout=20) as chat:
        chat.send("hello")
        assert chat.recv(20) == "hello"


def test_the_office_page_is_for_the_office_with_a_password(company: Company) -> None:
    assert company.ask("/admin", headers=LOGIN, client=ELSEWHERE).status == 403
    answer = company.ask("/admin", client=OFFICE)
    assert (answer.status, answer.headers["WWW-Authenticate"][:21]) == (401, 'Basic realm="office",')
    forged = {**LOGIN, "Remote-User": "root", "Remote_User": "root", "X-Forwarded-For": "192.0.2.1"}
    answer = company.ask("/admin/users", headers=forged, client=OFFICE)
    assert answer.status == 200
    got = answer.json["headers"]
    assert got["remote-user"] == "anna"
    assert "authorization" not in got
    assert "remote_user" not in got
    assert got["x-forwarded-for"] == OFFICE


def test_the_target_with_a_certificate_of_another_authority_gets_nothing(company: Company) -> None:
    assert {company.name("/admin", headers=LOGIN, client=OFFICE) for _ in range(6)} == {"office_1"}
    impostor = company.targets["office_2"]
    assert company.lb.state(impostor.address) in ("starting", "unready")
    assert impostor.seen == []


def test_api_v1_is_the_root_of_its_targets(company: Company) -> None:
    answer = company.ask("/api/v1/users/a%20b?x=%2F", "api.example.org")
    assert answer.json["path"] == "/users/a%20b?x=%2F"
    assert answer.json["headers"]["host"] == "api.example.org"
    assert company.ask("/api/v1", "api.example.org").json["path"] == "/"
    answer = company.ask("/api/v1/moved", "api.example.org")
    assert (answer.status, answer.headers["Location"]) == (302, "/api/v1/users/1")


def test_login_is_limited(company: Company) -> None:
    answers = [company.ask("/login", method="POST", body=b"user=anna") for _ in range(9)]
    refused = [each for each in answers if each.status == 429]
    assert [each.status for each in answers[:5]] == [200] * 5
    # One more every 12 seconds.
    assert refused
    assert all(1 <= int(each.headers["Retry-After"]) <= 12 for each in refused)
    assert company.ask("/loginx").status == 200, "the limit is for /login alone"


def test_the_api_is_for_pages_of_the_website(company: Company) -> None:
    page = {"Origin": "https://www.example.org"}
    asked = {**page, "Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "content-type"}
    answer = company.ask("/api/v1/x-preflight", "api.example.org", "OPTIONS", headers=asked)
    assert answer.status == 204
    assert answer.headers["Access-Control-Allow-Origin"] == page["Origin"]
    assert "PUT" in answer.headers["Access-Control-Allow-Methods"]
    assert answer.headers["Access-Control-Max-Age"] == "600"
    assert not any("x-preflight" in path for target in company.targets.values() for path in target.seen)
    answer = company.ask("/api/v1/x", "api.example.org", headers=page)
    assert answer.headers["Access-Control-Allow-Origin"] == page["Origin"]
    answer = company.ask("/api/v1/x", "api.example.org", headers={"Origin": "https://evil.example"})
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_pages_for_browsers_and_documents_for_programs(company: Company) -> None:
    answer = company.ask("/nothing/<b>", "api.example.org", headers=BROWSER)
    assert (answer.status, answer.headers["Content-Type"]) == (404, "text/html; charset=utf-8")
    assert b"api.example.org has no page /nothing/&lt;b&gt;." in answer.body
    answer = company.ask("/api/v1/x", "api.example.org", "POST", b"x" * ((1 << 20) + 1))
    assert (answer.status, answer.headers["Content-Type"]) == (413, "application/problem+json")
    assert answer.json["reason"] == "body_too_large"


def test_maintenance(company: Company) -> None:
    done = company.lb.cli("maintenance", "web", "on", "--retry-after", "10m", timeout=60)
    assert done.returncode == 0, done.stderr
    answer = company.ask("/", headers=BROWSER)
    assert (answer.status, answer.headers["Retry-After"]) == (503, "600")
    assert b"<h1>Back soon</h1>" in answer.body
    assert answer.headers["X-Request-Id"].encode() in answer.body
    assert company.ask("/").json["reason"] == "maintenance"
    assert company.ask("/api/v1/x", "api.example.org").status == 200, "the other routes go on"
    done = company.lb.cli("maintenance", "web", "off", timeout=60)
    assert done.returncode == 0, done.stderr
    assert company.ask("/", headers=BROWSER).status == 200


# --- the same for other programs -------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The example with the certificates that it names."""
    shutil.copytree(COMPANY, tmp_path / "company")
    authority = Authority()
    authority.issue("www.example.org", "api.example.org", "example.org").write(tmp_path / "company/certs", "www")
    (tmp_path / "company/company-ca.pem").write_bytes(authority.pem)
    return tmp_path / "company"


@pytest.mark.parametrize(
    "command",
    [
        ("nginx", "-t", "-p", ".", "-c", "nginx.conf"),
        ("caddy", "validate", "--config", "Caddyfile", "--adapter", "caddyfile"),
    ],
)
def test_the_files_of_other_programs_are_valid(folder: Path, command: tuple[str, ...]) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    plain, secure = free_ports(2)  # nginx binds what it checks
    text = (folder / "nginx.conf").read_text()
    (folder / "nginx.conf").write_text(
        text.replace("listen 80 ", f"listen {plain} ").replace("443 ssl", f"{secure} ssl")
    )
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
