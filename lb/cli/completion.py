"""`lb completion SHELL`: the script that makes a shell complete commands, options and, where lb runs, names.

The scripts for zsh and fish are click's. Bash gets one of its own, because it takes `:` for the border of a word.
`127.0.0.1:50` would reach lb as `50`, and the answer would be put after the colon a second time.
"""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem, get_completion_class

from lb.cli.client import client_of
from lb.cli.failure import Failure

BASH = """\
_lb_completion() {
    local line=${COMP_LINE:0:COMP_POINT} IFS=$' \\t\\n' count word kept type value
    local -a typed
    read -ra typed <<< "$line"
    count=${#typed[@]} word=
    if [[ $line != *[[:space:]] ]]; then
        count=$((count - 1)) word=${typed[count]}
    fi
    # What stands before the last colon of a word is no part of it for bash.
    kept=
    if [[ $COMP_WORDBREAKS == *:* && $word == *:* ]]; then
        kept=${word%"${word##*:}"}
    fi
    COMPREPLY=()
    while IFS=, read -r type value; do
        case $type in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain) COMPREPLY+=("${value#"$kept"}") ;;
        esac
    done < <(COMP_WORDS=$line COMP_CWORD=$count _LB_COMPLETE=bash_complete "$1" 2> /dev/null)
}
complete -o nosort -F _lb_completion lb
"""


@click.command(
    epilog="""\b
Try it in this shell:
  source <(lb completion bash)
  source <(lb completion zsh)
  lb completion fish | source

\b
Examples, to keep it:
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
    click.echo(BASH if shell == "bash" else kind(group, {}, "lb", "_LB_COMPLETE").source(), nl=shell != "bash")


def names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Services, pools or targets of the running lb, by the parameter's name; nothing when it does not answer fast."""
    # A group's own options are in its context, options of a word before this one in this command's.
    given = {**(ctx.parent.params if ctx.parent is not None else {}), **{k: v for k, v in ctx.params.items() if v}}
    try:
        services = client_of(given, timeout=0.5).get("/api/v1/status")["services"]
    except Failure:
        return []
    known = [service["name"] for service in services]
    if param.name == "service":
        return offered([(service["name"], f"active: {service['active']}") for service in services], incomplete)
    if param.name == "pool":
        chosen = [service for service in services if service["name"] == ctx.params.get("service")]
        return offered([(pool["name"], f"{pool['share']} %") for s in chosen for pool in s["pools"]], incomplete)
    targets = [target for service in services for pool in service["pools"] for target in pool["targets"]]
    addresses = [target["address"] for target in targets]
    found = [(name, "service") for name in known] if param.name == "subject" else []
    found += [(t["address"], t["state"]) for t in targets if addresses.count(t["address"]) == 1]
    # Whole names once the user types one: both forms at once would only be twice as long.
    if "/" in incomplete or not offered(found, incomplete):
        found += [(target["id"], target["state"]) for target in targets]
    return offered(found, incomplete)


def offered(found: list[tuple[str, str]], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name, help=told) for name, told in found if name.startswith(incomplete)]
