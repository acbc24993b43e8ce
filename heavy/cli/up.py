"""`heavy up`: everything on one machine, in processes of its own, until Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Callable

import click

from heavy.cli import exits
from heavy.cli.board import Board
from heavy.cli.interrupts import Interrupted, on_interrupt
from heavy.cli.options import complete_profile
from heavy.config import Settings
from workers.local import LocalCluster, LocalPlan
from workers.shipped import LOCAL_PROFILE, PROFILE_DIRECTORIES


@click.command()
@click.option(
    "--profile",
    "profiles",
    multiple=True,
    shell_complete=complete_profile,
    help=f"What to serve; repeatable.  [default: {LOCAL_PROFILE}]",
)
@click.option(
    "--profiles-dir", multiple=True, type=click.Path(exists=True, file_okay=False), help="More profiles."
)
@click.option(
    "--replicas", type=click.IntRange(1, 64), help="Replicas of each profile.  [default: the profile's]"
)
@click.option("--runners", type=click.IntRange(1, 64), default=2, show_default=True, help="Runner processes.")
@click.option(
    "--port", type=click.IntRange(0, 65535), help="gRPC port; 0 picks a free one.  [default: 50051]"
)
@click.option(
    "--http-port",
    type=click.IntRange(0, 65535),
    help="HTTP port: web page, metrics and health.  [default: 8080]",
)
@click.option(
    "--keep-replicas",
    is_flag=True,
    help="Leave the replicas at the end, whoever ends; needs RAY_ADDRESS and HEAVY_STORE_URL.",
)
def up(
    profiles: tuple[str, ...],
    profiles_dir: tuple[str, ...],
    replicas: int | None,
    runners: int,
    port: int | None,
    http_port: int | None,
    keep_replicas: bool,
) -> None:
    """Serve on this machine: store, Ray, replicas, runners and coordinator, until Ctrl-C.

    What is not given is started here and ends with this command: without HEAVY_STORE_URL a Valkey, without
    RAY_ADDRESS a local Ray cluster. `heavy ask` finds the server at its default address.

    On a cluster of GPU nodes, give both and --keep-replicas: replicas then outlive this command, and the next
    `heavy up` goes on with them. Several may run for the same store; one of them minds the replicas.
    `heavy replicas update PROFILE --replicas 0` lets kept ones go.
    """
    settings = local_settings(profiles_dir, port=port, http_port=http_port)
    if keep_replicas and not (settings.store_url and os.environ.get("RAY_ADDRESS")):
        raise click.UsageError(
            "--keep-replicas needs RAY_ADDRESS and HEAVY_STORE_URL: what is started here ends here"
        )
    plan = LocalPlan(profiles or (LOCAL_PROFILE,), runners, replicas, keep_replicas)
    sys.exit(asyncio.run(_up(plan, settings)))


async def _up(plan: LocalPlan, settings: Settings) -> int:
    try:
        with Board() as board:
            async with running(plan, settings, board) as cluster:
                board.settle()
                click.echo(ready_text(cluster.settings, keeps=plan.keep_replicas))
                await cluster.watch()
    except Interrupted:
        return exits.ANSWERED
    return exits.FAILED


def ready_text(settings: Settings, *, keeps: bool = False) -> str:
    """What to do now that it serves; whether it `keeps` its replicas at the end."""
    at = f"{settings.host}:{settings.port}"
    end = "everything but the replicas" if keeps else "everything"
    return (
        f'\nReady. Ask with:  heavy ask --server {at} "What is 17 * 23?"\n'
        f"Web page, metrics and health: http://{settings.host}:{settings.http_port}\nCtrl-C stops {end}."
    )


def local_settings(profile_dirs: tuple[str, ...], *, port: int | None, http_port: int | None) -> Settings:
    """Settings of the environment with what the flags say, and with the profiles that are shipped."""
    given = Settings.read()
    dirs = (*profile_dirs, *given.profile_directories, *PROFILE_DIRECTORIES)
    changes = {"profile_dirs": ":".join(dirs), "port": port, "http_port": http_port}
    return given.model_copy(update={k: v for k, v in changes.items() if v is not None})


@contextlib.asynccontextmanager
async def running(
    plan: LocalPlan, settings: Settings, progress: Callable[[str, str, str], None]
) -> AsyncIterator[LocalCluster]:
    """A whole Heavy around a block, taken down in order at its end.

    Ctrl-C or SIGTERM ends the block, or the bring-up, and is raised as `Interrupted` once all is down.
    """
    task = asyncio.current_task()
    assert task is not None
    cluster = LocalCluster(plan, settings, progress)
    interrupted = asyncio.Event()

    def interrupt() -> None:
        if not interrupted.is_set():
            interrupted.set()
            task.cancel()

    with on_interrupt(interrupt):
        try:
            await cluster.start()
            yield cluster
        except asyncio.CancelledError:
            if not interrupted.is_set() or task.uncancel():
                raise
            progress("everything", "stopping", "interrupted")
            raise Interrupted from None
        finally:
            await cluster.stop()
