"""The `lb` command: names, groups and help. Each command's own file is imported only when that command is used.

`lb --help` is a table in this file and imports nothing but click, so that it answers in the blink of an eye. A test
holds the table against the commands' own summaries.
"""

from __future__ import annotations

import sys

from lb import early_signals

if __name__ != "__main__":  # the console script: signals are noted before anything large is imported
    early_signals.hold_for_run(sys.argv)

import errno
import gc
import importlib
import io
import os

import click

#: heading → command → (module:attribute, summary)
COMMANDS: dict[str, dict[str, tuple[str, str]]] = {
    "Serve": {
        "run": ("lb.cli.run:run", "Serve: the proxy, its health checks and its admin port."),
        "reload": ("lb.cli.reload:reload", "Read the file again, without losing a connection."),
        "upgrade": ("lb.cli.upgrade:upgrade", "Run the installed code, without losing a connection."),
    },
    "Look": {
        "status": ("lb.cli.status:status", "Services, pools and targets at a glance."),
        "explain": ("lb.cli.explain:explain", "Why something is, or is not, getting traffic."),
        "certificates": ("lb.cli.certificates:certificates", "What certificate each name gets, why, and until when."),
        "events": ("lb.cli.events:events", "What happened: state changes, switches, reloads."),
        "probe": ("lb.cli.target:probe", "Probe a target now; show asked, got and expected."),
    },
    "Release": {
        "switch": ("lb.cli.switch:switch", "Send a service's traffic to another pool."),
        "rollback": ("lb.cli.switch:rollback", "Back to the previous pool, at once."),
        "drain": ("lb.cli.target:drain", "Take a target out gently, until it is safe to kill."),
        "undrain": ("lb.cli.target:undrain", "Put a drained target back."),
        "maintenance": ("lb.cli.maintenance:maintenance", "Answer a route's clients with 503 and a page."),
        "weight": ("lb.cli.target:weight", "Give a target more or less traffic."),
    },
    "File": {
        "check": ("lb.cli.check:check", "Validate a file; say how fast trouble is noticed."),
        "route": ("lb.cli.route:route", "Which route a request takes, and why no other."),
        "discover": ("lb.cli.discover:discover", "What each source of targets says now."),
        "plan": ("lb.cli.plan:plan", "What a reload with a file would change."),
        "drill": ("lb.cli.drill:drill", "Break fake targets under load; see what gets through."),
        "schema": ("lb.cli.schema:schema", "JSON Schema of the file, for editors."),
        "import": ("lb.cli.import_marathon:import_", "Make a file from another system's settings."),
    },
    "Shell": {
        "completion": ("lb.cli.completion:completion", "Print the completion script for a shell."),
    },
}

EXAMPLES = """\b
Examples:
  lb run --demo                   start with backends to play with
  lb status --watch               see every target, live
  lb switch greeting green        blue/green: refused unless green is ready
  lb switch greeting green --steps 5,25,100 --step-time 60s --wait
  lb explain 127.0.0.1:5001       why is this one not getting traffic?
  lb check backends.yaml          how long can a dead target stay in?

\b
Client commands talk to the admin port: --admin URL or $LB_ADMIN, by default
http://127.0.0.1:9900. A TARGET is service/pool/host:port or any unambiguous
tail of that. Exit codes: 0 done, 1 refused or failed, 2 wrong usage."""

WORDS = "lb.cli.words"


class LazyGroup(click.Group):
    """A group that knows its commands by name and imports one only to run it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for commands in COMMANDS.values() for name in commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        for commands in COMMANDS.values():
            if cmd_name in commands:
                module, _, attribute = commands[cmd_name][0].partition(":")
                command = getattr(importlib.import_module(module), attribute)
                assert isinstance(command, click.Command)
                if cmd_name != "run":  # whose supervisor does so once it serves
                    gc.enable()
                return command
        return None

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args[:1] == ["help"]:  # as in git and docker
            args = [*args[1:], "--help"]
        ctx.meta[WORDS] = tuple(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        """With --json errors are JSON as well; the reason is on stderr besides."""
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            if "--json" in ctx.meta[WORDS]:
                import json

                document = getattr(error, "document", None)
                usage = {"title": "Wrong usage", "detail": error.format_message()}
                click.echo(json.dumps(document() if document else usage, indent=2))
            raise

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        known = not args or args[0].startswith("-") or args[0] in self.list_commands(ctx)
        if not known and not ctx.resilient_parsing:  # (a shell that completes words expects no complaint)
            from difflib import get_close_matches

            near = get_close_matches(args[0], self.list_commands(ctx), n=1)
            hint = f" Did you mean `lb {near[0]}`?" if near else " `lb --help` lists them."
            ctx.fail(f"there is no command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for heading, commands in COMMANDS.items():
            with formatter.section(heading):
                formatter.write_dl([(name.ljust(10), summary) for name, (_, summary) in commands.items()])


def show_version(ctx: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from lb import __version__, build_form

        build = "" if build_form.is_optimised() else " (built without optimisation)"
        click.echo(f"lb {__version__}, Python {sys.version.split()[0]}{build}, {build_form.form()}")
        ctx.exit()


@click.group(cls=LazyGroup, epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--admin", metavar="URL", help="Admin port of the running lb ($LB_ADMIN).")
@click.option("--token-file", metavar="FILE", help="File with the admin token ($LB_TOKEN_FILE).")
@click.option("--ca-file", metavar="FILE", help="Authorities of its certificate ($LB_ADMIN_CA).")
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=show_version, help="Show it.")
@click.pass_context
def group(ctx: click.Context, admin: str | None, token_file: str | None, ca_file: str | None) -> None:
    """The health-aware front door: traffic only ever reaches a backend that is
    ready, and a release can be switched, watched and rolled back without losing
    one request.
    """
    ctx.obj = {"admin": admin, "token_file": token_file, "ca_file": ca_file}


def main() -> None:
    """Console script. A reader that went away (`lb events | head`) or a full disk is no error worth a traceback."""
    gc.disable()  # imports make what stays; to look through it for garbage is a tenth of their time
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that knows no ● shows a ? in its place
    try:
        group.main(prog_name="lb")
    except BrokenPipeError:
        _let_go()
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
        _let_go(f"lb: the answer cannot be written: {(error.strerror or '').lower()}")


def _let_go(why: str = "") -> None:
    """Python flushes stdout once more at exit: it gets somewhere to go."""
    if why:
        print(why, file=sys.stderr)
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(1)
