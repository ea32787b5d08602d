"""`lb completion SHELL`: the script that makes a shell complete commands, options and, where lb runs, names."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem, get_completion_class

from lb.cli.client import Client, Failure


@click.command(
    epilog="""\b
Examples:
  lb completion bash > ~/.local/share/bash-completion/completions/lb
  lb completion zsh > "${fpath[1]}/_lb"
  lb completion fish > ~/.config/fish/completions/lb.fish"""
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script for a shell.

    Names of services, pools and targets are asked of the running lb.
    """
    from lb.cli.main import group

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(group, {}, "lb", "_LB_COMPLETE").source())


def names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Services, pools or targets of the running lb, by the parameter's name; nothing when it does not answer fast."""
    import os

    from lb.cli.client import DEFAULT_ADMIN, target_ids

    where = ctx.params.get("admin") or os.environ.get("LB_ADMIN") or DEFAULT_ADMIN
    try:
        client = Client(where, os.environ.get("LB_TOKEN_FILE", ""), timeout=0.5)
        status = client.get("/api/v1/status")
    except Failure:
        return []
    if param.name == "service":
        found = [service["name"] for service in status["services"]]
    elif param.name == "pool":
        chosen = ctx.params.get("service")
        found = [
            pool["name"] for service in status["services"] if service["name"] == chosen for pool in service["pools"]
        ]
    else:
        ids = target_ids(status)
        tails = [known.rsplit("/", 1)[-1] if "unix:" not in known else known for known in ids]
        found = [tail for tail in tails if tails.count(tail) == 1] + ids
    return [CompletionItem(name) for name in found if name.startswith(incomplete)]
