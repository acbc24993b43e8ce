"""`heavy completion`: what a shell must read to complete commands, flags, run ids and profiles."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

HOW = {
    "bash": 'eval "$(heavy completion bash)"        # in ~/.bashrc',
    "zsh": 'eval "$(heavy completion zsh)"         # in ~/.zshrc, after compinit',
    "fish": "heavy completion fish | source         # in ~/.config/fish/config.fish",
}
VARIABLE = "_HEAVY_COMPLETE"


@click.command(epilog="\b\n" + "\n".join(HOW.values()))
@click.argument("shell", type=click.Choice(sorted(HOW)))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print what SHELL must read to complete `heavy`: commands, flags, ids of the newest runs, profiles."""
    kind = get_completion_class(shell)
    assert kind is not None
    root = context.find_root()
    click.echo(kind(root.command, {}, "heavy", VARIABLE).source())
