"""`lb certificates`: what each name gets, why, until when, and what could not be taken."""

from __future__ import annotations

import json
import time

import click

from lb.cli.client import Client, admin_options, in_path, json_option
from lb.cli.failure import Json
from lb.cli.terminal import Ink, age, colours, columns, wrapped

#: Seconds before its end from which a certificate is shown in yellow.
SOON = 14 * 86400.0


class NameOrCommand(click.Group):
    """A group whose first argument may be a host name as well as one of its commands."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] in self.commands:
            return super().resolve_command(ctx, args)
        return "show", self.commands["show"], args

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # Without a command, what follows is about the names: `--json` belongs to them as well.
        if not any(arg in self.commands or arg in ("--help", "-h") for arg in args[:1]):
            args = ["show", *args]
        return super().parse_args(ctx, args)


@click.group(
    cls=NameOrCommand,
    epilog="""\b
Examples:
  lb certificates
  lb certificates www.example.org     what this name gets, and why
  lb certificates --json
  lb certificates renew www.example.org     order it anew, now
  lb certificates trust                     how to trust lb's own authority

`lb check` finds certificates that end soon, or lack their chain, before they
are served.""",
)
def certificates() -> None:
    """What certificate each name gets, why, and until when.

    A name of several certificates gets one for each key algorithm, the one
    that ends last. With a NAME: what a client gets that asks for it, with the
    chain, and the routes of that host.
    """


@certificates.command(hidden=True)
@click.argument("name", required=False)
@admin_options
@json_option
def show(client: Client, name: str | None, as_json: bool) -> None:
    """What each name gets, or one NAME."""
    path = f"/api/v1/certificates/{in_path(name)}" if name else "/api/v1/certificates"
    answer: list[Json] = client.get(path)
    if as_json:
        click.echo(json.dumps(answer, indent=2))
        return
    ink, now = Ink(colours()), time.time()
    for line in one(answer, now, ink) if name else table(answer, now, ink):
        click.echo(line)


@certificates.command()
@click.argument("name")
@admin_options
def renew(client: Client, name: str) -> None:
    """Order or issue the certificate of NAME anew, now.

    For names that lb gets certificates for by itself. An authority counts such
    orders: Let's Encrypt issues five for the same name in a week.
    """
    answer: Json = client.post(f"/api/v1/certificates/{in_path(name)}/renew", {})
    for text in answer["under_way"]:
        click.echo(text)
    click.echo(f"How it goes: lb certificates {name}")


@certificates.command()
@admin_options
@click.option("--pem", is_flag=True, help="Print the authority's certificate alone.")
def trust(client: Client, pem: bool) -> None:
    """How to trust the internal authority on this machine.

    Whoever has its key can vouch for any name towards those who trust it: trust
    it on your own machines only.
    """
    answer: Json = client.get("/api/v1/certificate-authority")
    if pem:
        click.echo(answer["pem"], nl=False)
        return
    ink = Ink(colours())
    day = time.strftime("%Y-%m-%d", time.gmtime(answer["not_after"]))
    lines = [
        f"{ink(answer['subject'], 'bold')}, until {day}",
        f"  certificate  {answer['file']}",
        "  SHA-256      " + answer["fingerprint"][:47],
        "               " + answer["fingerprint"][48:],
        "",
    ]
    for system, commands in TRUST:
        lines += [ink(system, "dim"), *(f"  {each.format(file=answer['file'])}" for each in commands)]
    click.echo("\n".join(lines))


#: How systems and programs are told of an authority.
TRUST = (
    ("One command, without trusting it for good", ("curl --cacert {file} https://localhost:8443/",)),
    (
        "Debian, Ubuntu",
        ("sudo cp {file} /usr/local/share/ca-certificates/lb.crt", "sudo update-ca-certificates"),
    ),
    ("Fedora, RHEL", ("sudo cp {file} /etc/pki/ca-trust/source/anchors/lb.pem", "sudo update-ca-trust")),
    (
        "macOS",
        ("sudo security add-trusted-cert -d -r trustRoot -k /Library/Keychains/System.keychain {file}",),
    ),
    ("Windows, as administrator", ("certutil -addstore -f ROOT {file}",)),
    ("Firefox, and Chromium on Linux", ("certutil -d sql:$HOME/.pki/nssdb -A -t C,, -n lb -i {file}",)),
    ("Node.js, Python's requests", ("export NODE_EXTRA_CA_CERTS={file}", "export REQUESTS_CA_BUNDLE={file}")),
)


def table(answer: list[Json], now: float, ink: Ink) -> list[str]:
    """One line for each name."""
    if not answer:
        return ["No listener has a certificate."]
    rows = [[ink(head, "dim") for head in ("NAME", "ENDS", "KEYS", "LISTENER", "FROM")]]
    rows += [
        [
            each["name"],
            ends(each["not_after"], now, ink),
            ", ".join(one["algorithm"] for one in each["certificates"]),
            each["listener"],
            ", ".join(dict.fromkeys(one["source"] for one in each["certificates"])),
        ]
        for each in answer
    ]
    lines = columns(rows, "<<<<<")
    broken = {one["file"]: one for each in answer for one in each["certificates"] if one["kept"]}
    if broken:
        lines += ["", ink("Not taken, so that the former one is served:", "red", "bold")]
        lines += [part for one in broken.values() for part in wrapped(f"  {fault(one, now)}", "  ")]
    return lines


def one(answer: list[Json], now: float, ink: Ink) -> list[str]:
    """What one name gets from each listener."""
    if not answer:
        return ["No listener speaks TLS."]
    lines: list[str] = []
    for each in answer:
        lines += wrapped(f"{ink(each['name'], 'bold')} at {each['listener']}: {each['why']}", "  ")
        for found in each["certificates"]:
            lines.append(f"  {found['algorithm']}, {ends(found['not_after'], now, ink)}, from {found['file']}")
            lines += [f"    {link['subject']}, by {link['issuer']}" for link in found["chain"]]
            if found["chain_fault"]:
                lines += wrapped(f"    {ink('chain', 'yellow')}: {found['chain_fault']}", "    ")
            if found["failure"]:
                lines += wrapped(f"    {ink('last failure', 'red')}: {fault(found, now)}", "    ")
        if each["renewal"] is not None:
            lines += [part for text in renewal(each["renewal"], now) for part in wrapped(f"  {text}", "    ")]
        if each["client_certificates"] != "off":
            lines.append(f"  clients' certificates are {each['client_certificates']}")
    routes = answer[0]["routes"]
    lines += [f"  route {route['host'] or 'any host'}{route['path']} → {route['service']}" for route in routes]
    return lines or ["No listener speaks TLS."]


def renewal(found: Json, now: float) -> list[str]:
    """How a certificate that lb orders fares."""
    if found["under_way"]:
        soon = f"an order is under way ({found['under_way']})"
    elif found["next_attempt"] <= now:
        soon = "next attempt now"
    else:
        soon = f"next attempt in {age(found['next_attempt'] - now)}"
    lines = []
    if found["waiting_since"] is not None:
        lines.append(f"waiting for {found['authority']} since {age(now - found['waiting_since'])}, {soon}")
    else:
        lines.append(f"ordered from {found['authority']}: {soon} ({found['why']})")
    if found["failure"]:
        times = f", {found['failures']} times in a row" if found["failures"] > 1 else ""
        lines.append(f"the last attempt failed {age(now - found['failed_at'])} ago{times}: {found['failure']}")
    if found["in_memory"]:
        lines.append("the disk has not taken it: a restart would lose it")
    return lines


def ends(at: float | None, now: float, ink: Ink) -> str:
    """When a certificate ends, in the colour of the need to do something."""
    if at is None:
        return ink("refused", "red")
    day = time.strftime("%Y-%m-%d", time.gmtime(at))
    if at <= now:
        return ink(f"ended {age(now - at)} ago ({day})", "red", "bold")
    text = f"in {age(at - now)} ({day})"
    return ink(text, "yellow") if at - now < SOON else text


def fault(found: Json, now: float) -> str:
    """The last failure, and whether it is over."""
    over = "" if found["kept"] else "; it is over"
    return f"{found['failure']} (since {age(now - found['failed_at'])}{over})"
