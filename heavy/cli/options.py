"""Flags that several commands share, and what they make of a policy."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import click
from click.shell_completion import CompletionItem

from heavy.client import HeavyClient
from heavy.core.draft import PolicyDraft
from heavy.core.policy import AggregationMode, ContextPolicy

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

PATIENCE_S: Final = 3.0
"""For commands that only look: how long a server that cannot be reached is tried again."""

_ADDRESS = re.compile(r"(dns|ipv4|ipv6|unix|unix-abstract|xds):.+|[^/\s]+:\d{1,5}")


def complete_profile(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Profiles whose names begin so. They are read when somebody presses Tab, not before."""
    from heavy.cli.profiles import profiles_like

    return profiles_like(incomplete)


_POLICY_FLAGS = (
    click.option("--width", type=int, help="How many arms, 1 to 8.  [default: the server's, 8]"),
    click.option("--quorum", type=int, help="How many must complete before stragglers get only their grace."),
    click.option("--deadline", "deadline_s", type=float, metavar="SECONDS", help="Wall time for the run."),
    click.option(
        "--max-cost", "cost_usd_max", type=float, metavar="USD", help="Cap on what the run may cost."
    ),
    click.option("--max-tokens", "tokens_max", type=int, help="Cap on prompt and output tokens in all."),
    click.option("--max-steps", "steps_per_trajectory_max", type=int, help="Cap on steps of each arm."),
    click.option(
        "--aggregation",
        type=click.Choice([mode.value for mode in AggregationMode]),
        help="auto: the vote where arms agree, else the reflective pass.",
    ),
    click.option(
        "--profile",
        "arms",
        multiple=True,
        shell_complete=complete_profile,
        help="Profile of the arms; give it once, or once per arm.",
    ),
    click.option("--aggregator", shell_complete=complete_profile, help="Profile of the aggregator."),
    click.option("--preset", default="", help="A protocol of the profile, by name: see heavy profiles."),
    click.option("--tool", "tools", multiple=True, help="A tool the arms may use; repeatable."),
    click.option("--no-tools", is_flag=True, help="No tools at all."),
    click.option(
        "--context-policy",
        type=click.Choice([policy.value for policy in ContextPolicy]),
        help="What gives way when an arm's context is full.  [default: the profile's]",
    ),
    click.option(
        "--context-keep-last",
        type=int,
        metavar="K",
        help="How many tool outputs the policy keep_last keeps.  [default: the profile's]",
    ),
    click.option("--temperature", type=float, help="Sampling temperature of the arms."),
    click.option("--seed", type=int, help="Makes a run repeatable, as far as its engines are."),
)


class Address(click.ParamType[str]):
    """Where a server is: host:port, or a name that gRPC resolves, such as unix:/run/heavy.sock."""

    name = "HOST:PORT"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The address, or a usage error for what is a web address or has no port."""
        text = str(value)
        if not _ADDRESS.fullmatch(text):
            self.fail(f"{text!r} is no address of a server; write one such as 127.0.0.1:50051", param, ctx)
        return text


def server_flags(*, patience_s: float = PATIENCE_S) -> Callable[[F], F]:
    """The flags that say which server, for whom, and how long one that cannot be reached is tried again."""
    flags = (
        click.option(
            "--server",
            type=Address(),
            default="127.0.0.1:50051",
            envvar="HEAVY_SERVER",
            show_default=True,
            help="Where the server is ($HEAVY_SERVER).",
        ),
        click.option(
            "--token", envvar="HEAVY_TOKEN", help="Bearer token, where the server wants one ($HEAVY_TOKEN)."
        ),
        click.option(
            "--patience",
            type=click.FloatRange(min=0),
            default=patience_s,
            show_default=True,
            metavar="SECONDS",
            help="How long a server that cannot be reached is tried again.",
        ),
    )

    def decorate(command: F) -> F:
        for flag in reversed(flags):
            command = flag(command)
        return command

    return decorate


def connected(
    server: str, token: str | None, patience_s: float, question: Callable[[HeavyClient], Awaitable[T]]
) -> T:
    """What `question` makes of a client of the server that the flags name."""

    async def ask() -> T:
        async with HeavyClient(server, token, patience_s=patience_s) as client:
            return await question(client)

    return asyncio.run(ask())


def policy_flags(command: F) -> F:
    """The flags that describe a policy."""
    for flag in reversed(_POLICY_FLAGS):
        command = flag(command)
    return command


def policy_of(values: dict[str, Any]) -> PolicyDraft:
    """The policy that the flags describe; what was not given is the server's to choose."""
    values = dict(values)
    tools = () if values.pop("no_tools") else (values.pop("tools") or None)
    values.pop("tools", None)
    mode, context = values.pop("aggregation"), values.pop("context_policy", None)
    return PolicyDraft(
        **{key: value for key, value in values.items() if value not in (None, ())},
        aggregation=AggregationMode(mode) if mode else None,
        context_policy=ContextPolicy(context) if context else None,
        tools=tools,
    )
