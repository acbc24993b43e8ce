"""A batch as a Ray job: submitted through Ray's job server, followed, left running and found again."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import shlex
import sys
import time
from collections.abc import Sequence
from typing import Any, Final

import aiohttp
import click
from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus, JobSubmissionClient

from heavy.cli import exits
from heavy.cli.interrupts import on_interrupt
from heavy.core import clock
from heavy.core.errors import ConfigError, HeavyError, NotFound, ServerUnavailable, Unauthenticated

DEFAULT_ADDRESS: Final = "http://127.0.0.1:8265"
SUBMIT_PATIENCE_S: Final = 90.0
SUBMIT_PAUSE_S: Final = 2.0
STATUS_TRIES: Final = 20
STATUS_EVERY_S: Final = 0.5

LOST: Final = (OSError, aiohttp.ClientError)
"""What a connection to the job server dies of."""
FOREIGN: Final = (RuntimeError, AuthenticationError, *LOST)
"""Everything that Ray's client raises."""


def submit_batch(
    words: Sequence[str],
    *,
    address: str | None,
    job_id: str | None,
    command: str,
    send_token: bool,
    no_follow: bool,
) -> int:
    """Submit `heavy batch run` with `words`, follow it unless told not to; the exit code.

    Raises `ServerUnavailable`, `Unauthenticated`, `ConfigError`.
    """
    address = address or DEFAULT_ADDRESS
    client = _client(address)
    entrypoint = f"{command} batch run {shlex.join(words)}"
    job = job_id or f"heavy-batch-{secrets.token_hex(6)}"
    _submit(client, job, entrypoint, _variables(send_token), address)
    click.echo(f"Submitted as {job}: {entrypoint}")
    if no_follow:
        click.echo(_way_back(job, address))
        return exits.ANSWERED
    return asyncio.run(_follow(client, job, address))


def _submit(
    client: JobSubmissionClient, job: str, entrypoint: str, variables: dict[str, str], address: str
) -> None:
    """Submit under a name of ours, so that a submission whose answer was lost is tried again safely."""
    until_s = clock.monotonic_s() + SUBMIT_PATIENCE_S
    unsure = False
    while True:
        try:
            client.submit_job(
                entrypoint=entrypoint,
                submission_id=job,
                runtime_env={"env_vars": variables},
                metadata={"heavy": "batch"},
            )
            return
        except FOREIGN as error:
            if unsure and "already exists" in str(error):
                return
            # A head that has just started has no agent yet, and says so; a busy one drops connections.
            unsure = unsure or isinstance(error, LOST)
            passing = isinstance(error, LOST) or "try again" in str(error)
            if not passing or clock.monotonic_s() >= until_s:
                raise _translated(error, address) from error
        time.sleep(SUBMIT_PAUSE_S)


def follow_batch(job: str, address: str | None) -> int:
    """Follow a job from its first line on; the exit code of what it ran."""
    address = address or DEFAULT_ADDRESS
    return asyncio.run(_follow(_client(address), job, address))


async def _follow(client: JobSubmissionClient, job: str, address: str) -> int:
    """Until the job has ended or Ctrl-C; the job goes on in the second case."""
    task = asyncio.current_task()
    assert task is not None
    left = False

    def leave() -> None:
        nonlocal left
        left = True
        task.cancel()

    with on_interrupt(leave):
        try:
            lines: Any = client.tail_job_logs(job)
            async with contextlib.aclosing(lines):
                async for text in lines:
                    sys.stdout.write(text)
                    sys.stdout.flush()
            return await _ended(client, job)
        except asyncio.CancelledError:
            if not left or task.uncancel():
                raise
            click.echo(f"\nThe job goes on. {_way_back(job, address)}")
            return exits.INTERRUPTED
        except FOREIGN as error:
            raise _translated(error, address, job) from error


async def _ended(client: JobSubmissionClient, job: str) -> int:
    """The exit code of a job whose log has ended; Ray knows of its end a little later."""
    for _ in range(STATUS_TRIES):
        details = await asyncio.to_thread(client.get_job_info, job)
        if details.status.is_terminal():
            break
        await asyncio.sleep(STATUS_EVERY_S)
    else:
        raise RuntimeError(f"the log of {job} ended, but it is {details.status}")
    if details.status is JobStatus.SUCCEEDED:
        return exits.ANSWERED
    if details.status is JobStatus.STOPPED:
        click.echo(f"The job {job} was stopped. Submit it again in the same words and it goes on.", err=True)
        return exits.INTERRUPTED
    code = details.driver_exit_code
    if code is None or code < 0:
        click.echo(f"The job {job} died: {details.message}. Submit it again; it goes on.", err=True)
        return exits.FAILED
    return code


def _client(address: str) -> JobSubmissionClient:
    # How each connection to the job server was closed is ours to say, where it is worth saying.
    logging.getLogger(JobSubmissionClient.__module__).setLevel(logging.WARNING)
    try:
        return JobSubmissionClient(address)
    except (*FOREIGN, ValueError) as error:
        raise _translated(error, address) from error


def _translated(error: Exception, address: str, job: str = "") -> HeavyError:
    """Ray's errors, and its client's bare ones, as ours."""
    text = _last_words(error)
    if job and "404" in text:
        return NotFound(
            f"Ray's job server at {address} has no job {job!r}: see `ray job list --address {address}`.",
            complete=True,
        )
    if isinstance(error, AuthenticationError) or "401" in text or "403" in text:
        return Unauthenticated(
            f"Ray's job server at {address} wants its cluster's token: set RAY_AUTH_MODE=token and "
            "RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH) to what the head was started with.",
            complete=True,
        )
    if isinstance(error, LOST) or "connect" in text.lower():
        back = f" If the job still runs: {_way_back(job, address)}" if job else ""
        return ServerUnavailable(
            f"Ray's job server at {address} cannot be reached ({text}). Is the head up, with its dashboard? "
            f"--address says where it is.{back}",
            complete=True,
        )
    return ConfigError(f"Ray's job server at {address} refused: {text}")


def _last_words(error: Exception) -> str:
    """What an error says in the end: Ray sends tracebacks of its own, whose last line is what happened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip(" .")]
    return (lines[-1] if lines else type(error).__name__)[:400]


def _way_back(job: str, address: str) -> str:
    at = "" if address == DEFAULT_ADDRESS else f" --address {address}"
    return f"Come back with: heavy batch follow {job}{at}   Stop it with: ray job stop{at} {job}"


def _variables(send_token: bool) -> dict[str, str]:
    """What the job needs of this environment. A token goes only where its owner said so."""
    names = ["HEAVY_SERVER"]
    if send_token:
        if not os.environ.get("HEAVY_TOKEN"):
            raise ConfigError("--send-token sends $HEAVY_TOKEN, which is not set.")
        names.append("HEAVY_TOKEN")
    found: dict[str, Any] = {name: os.environ[name] for name in names if os.environ.get(name)}
    return {**found, "PYTHONUNBUFFERED": "1"}
