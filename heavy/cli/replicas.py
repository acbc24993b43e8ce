"""`heavy replicas`: which model servers and runners are there, and what they do."""

from __future__ import annotations

import asyncio
import sys
from typing import TextIO

import click
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from heavy.admin import ReplicaClient
from heavy.cli import draw, exits
from heavy.cli.interrupts import on_interrupt
from heavy.cli.live import steady
from heavy.cli.options import complete_profile, connected, server_flags
from heavy.cli.plain import plain
from heavy.client import HeavyClient
from heavy.core import clock
from heavy.core.codec import dump
from heavy.core.errors import HeavyError
from heavy.core.fleet import FleetListing, ProfileChange, ReplicaInfo, ReplicaState, Served

WATCH_EVERY_S = 1.0
BAR_COLUMNS = 10
WIDE_COLUMNS = 100
LAST_LINES = 3
"""How much is shown of what an engine said that is being started again."""

_STATE_STYLE = {
    ReplicaState.READY: "green",
    ReplicaState.PENDING: "yellow",
    ReplicaState.STARTING: "yellow",
    ReplicaState.DRAINING: "yellow",
    ReplicaState.STOPPED: "dim",
    ReplicaState.FAILED: "red",
}


@click.group(invoke_without_command=True)
@click.option("--watch", is_flag=True, help="Stay, and show what changes, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, nothing else.")
@server_flags()
@click.pass_context
def replicas(
    context: click.Context, watch: bool, as_json: bool, server: str, token: str | None, patience: float
) -> None:
    """List the replicas and runners of a server: state, load, KV memory, where they run. With a command: act.

    For administrators: a `tenant:token:admin` line of the server's tokens file, or anybody at a server
    without tokens.
    """
    if context.invoked_subcommand is not None:
        return
    if watch and as_json:
        raise click.UsageError("--watch draws a screen; call it again and again for JSON")

    async def listed(client: HeavyClient) -> int:
        fleet = ReplicaClient(client)
        return await (_watch(fleet) if watch else _list(fleet, as_json=as_json))

    sys.exit(connected(server, token, patience, listed))


@replicas.command(short_help="The last lines of a replica's engine.")
@click.argument("replica")
@server_flags()
def logs(replica: str, server: str, token: str | None, patience: float) -> None:
    """Print the last lines that the engine of REPLICA wrote.

    They are kept for a day, also when the replica is gone: what it said last is why it failed.
    """

    for line in connected(server, token, patience, lambda client: ReplicaClient(client).log(replica)):
        click.echo(line)


@replicas.command(short_help="Let a replica finish what it has and leave.")
@click.argument("replica")
@server_flags()
def drain(replica: str, server: str, token: str | None, patience: float) -> None:
    """Let REPLICA finish what it has in flight and leave; another one takes its place.

    To have fewer replicas, use `heavy replicas update PROFILE --replicas N`.
    """

    served = connected(server, token, patience, lambda client: ReplicaClient(client).drain(replica))
    click.echo(f"{replica} drains. {_wanted_text(served)} See: heavy replicas --watch")


@replicas.command(short_help="Change what is served of a profile.")
@click.argument("profile", shell_complete=complete_profile)
@click.option("--replicas", "number", type=click.IntRange(0, 64), help="How many, at least.")
@click.option("--replicas-max", type=click.IntRange(0, 64), help="How many under load.")
@click.option(
    "--file",
    type=click.File(),
    help="The profile's new definition (TOML; paths in it absolute): a rolling update.",
)
@click.option("--restart", is_flag=True, help="Start every replica anew, and forgive earlier failures.")
@server_flags()
def update(
    profile: str,
    number: int | None,
    replicas_max: int | None,
    file: TextIO | None,
    restart: bool,
    server: str,
    token: str | None,
    patience: float,
) -> None:
    """Change how many replicas of PROFILE there are, or what they are started from.

    Replicas are replaced one by one and never below the minimum that is ready: where the cluster has room for
    one more, it comes first; else one leaves at a time, and a single replica waits for room.
    """
    if number is None and replicas_max is None and file is None and not restart:
        raise click.UsageError("say what is to change: --replicas, --replicas-max, --file or --restart")
    change = ProfileChange(profile, file.read() if file else "", number, replicas_max, restart)
    served = connected(server, token, patience, lambda client: ReplicaClient(client).update(change))
    click.echo(f"{_wanted_text(served)} See: heavy replicas --watch")


def _wanted_text(served: Served) -> str:
    most = f" to {served.replicas_max}" if served.replicas_max > served.replicas_min else ""
    return f"{served.profile}: {served.replicas_min}{most} wanted, revision {served.revision}."


async def _list(fleet: ReplicaClient, *, as_json: bool) -> int:
    listing = await fleet.list()
    if as_json:
        sys.stdout.write(dump(listing).decode() + "\n")
    else:
        console = draw.console()
        console.print(table(listing, console.width, clock.now_ms()))
    return exits.ANSWERED


async def _watch(fleet: ReplicaClient) -> int:
    """Until Ctrl-C. A server that does not answer is said to below what it said last, and asked again."""
    stop = asyncio.Event()
    shown, trouble = await fleet.list(), Text("")

    def drawn(columns: int) -> RenderableType:
        return Group(table(shown, columns, clock.now_ms()), trouble)

    with on_interrupt(stop.set), steady(draw.console(), drawn, auto_refresh=False) as screen:
        while not stop.is_set():
            screen.refresh()
            try:
                async with asyncio.timeout(WATCH_EVERY_S):
                    await stop.wait()
            except TimeoutError:
                try:
                    shown, trouble = await fleet.list(), Text("")
                except HeavyError as error:
                    trouble = Text(f"As it was before: {error}", style="red")
    return exits.ANSWERED


def table(listing: FleetListing, width: int, now_ms: int) -> RenderableType:
    """Replicas, then runners, on any width."""
    if not listing.replicas and not listing.runners and not listing.profiles:
        return Text("No replica and no runner is there. `heavy up` starts them.", style="yellow")
    parts = (_replicas(listing.replicas, width, now_ms), *_troubles(listing), Text(""), _runners(listing))
    return Group(*parts)


def _troubles(listing: FleetListing) -> list[Text]:
    """What there is too little of; what could not be started, and whether it is tried again."""
    found = []
    for served in listing.profiles:
        states = [info.state for info in listing.replicas if info.profile == served.profile]
        if (ready := states.count(ReplicaState.READY)) < served.replicas:
            found.append(Text(f"{served.profile}: {ready} of {served.replicas} ready", style="yellow"))
        if served.failures and served.replicas:
            again = "not started again until it changes" if served.quarantined else "it is tried again"
            times = "once" if served.failures == 1 else f"{served.failures} times in a row"
            style = "red" if served.quarantined else "yellow"
            reason = served.reason if served.quarantined else _shortened(served.reason)
            found.append(Text.assemble((f"{served.profile} failed {times}; {again}: ", style), reason))
    return found


def _shortened(reason: str) -> str:
    """What happened, and the end of what the engine said about it."""
    what, *said = reason.splitlines()
    return "\n".join([what, *said[-LAST_LINES:]])


def _replicas(found: tuple[ReplicaInfo, ...], width: int, now_ms: int) -> RenderableType:
    if not found:
        return Text("No replica is there: nothing can be asked.", style="red")
    wide = width >= WIDE_COLUMNS
    grid = Table(box=None, pad_edge=False, header_style="dim")
    for name, right in (("replica", False), ("state", False), ("runs", True), ("waits", True)):
        grid.add_column(name, justify="right" if right else "left", no_wrap=True)
    grid.add_column("KV", no_wrap=True)
    if wide:
        for name in ("since", "engine", "where"):
            grid.add_column(name, no_wrap=True, overflow="ellipsis")
    notes: list[Text] = []
    for info in found:
        style = _STATE_STYLE[ReplicaState(info.state)] if info.state in set(ReplicaState) else ""
        since = draw.span_text((now_ms - info.since_ms) / 1000) if info.since_ms else ""
        where = ", ".join(info.nodes) or (f"pid {info.pid}" if info.pid else info.base_url)
        more = [since, info.engine, where] if wide else []
        running = f"{info.running}/{info.in_flight_max}"
        state = Text(info.state, style=style)
        grid.add_row(info.replica, state, running, str(info.waiting), _kv(info, wide), *more)
        if info.detail:
            notes.append(Text.assemble((f"{info.replica}: ", style), info.detail))
    return Group(grid, *notes)


def _kv(info: ReplicaInfo, wide: bool) -> Text:
    """How full the KV memory is; a dash where the engine does not say."""
    if not info.kv_tokens_max:
        return Text("-", style="dim")
    share = min(1.0, info.kv_tokens_used / info.kv_tokens_max)
    reserved = min(9.99, info.kv_tokens_reserved / info.kv_tokens_max)
    style = "red" if share > 0.9 else "yellow" if share > 0.7 else "green"
    bar = f"{'█' * round(share * BAR_COLUMNS):<{BAR_COLUMNS}} " if wide else ""
    more = (f" ({reserved:.0%} reserved)", "dim") if wide and reserved else ""
    return Text.assemble((bar, style), (f"{share:.0%}", style), more)


def _runners(listing: FleetListing) -> RenderableType:
    if not listing.runners:
        return Text("No runner is there: nothing executes trajectories.", style="red")
    shown = ", ".join(
        f"{runner.runner} {runner.in_flight}/{runner.in_flight_max}" for runner in listing.runners
    )
    head = Text.assemble(("runners  ", "bold"), shown, ("  trajectories under way / at most", "dim"))
    walls = dict.fromkeys(plain(runner.sandbox) or "none: no code is run" for runner in listing.runners)
    return Group(head, *(Text.assemble(("sandbox  ", "bold"), text) for text in walls))
