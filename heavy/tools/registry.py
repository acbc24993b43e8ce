"""From tool names to tools: which there are, and what is wrapped around them, in what order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

from heavy.core.errors import ConfigError, HeavyError
from heavy.core.files import FileReader
from heavy.core.ids import RunId, TrajectoryId
from heavy.core.traces import TraceReader
from heavy.tools.api import Closing, Lasting, Tool
from heavy.tools.cache import CachedTool, ToolCache
from heavy.tools.config import (
    DEFAULT,
    MCP_SEPARATOR,
    PYTHON,
    WEB_FETCH,
    WEB_SEARCH,
    CachePolicy,
    NetworkSection,
    PythonSection,
    ToolsConfig,
    WebFetchSection,
    WebSearchSection,
    every_tool,
    secret_of,
)
from heavy.tools.history import Remembering
from heavy.tools.mcp_server import McpServer
from heavy.tools.mcp_tool import tools_of
from heavy.tools.python import PythonTool
from heavy.tools.python_session import PythonSessionTool
from heavy.tools.recording import load_recording
from heavy.tools.replay import RecordedTool, ReplayedTool
from heavy.tools.sandbox.jail import SandboxLimits
from heavy.tools.sandbox.level import level_of
from heavy.tools.sandbox.sandbox import Sandbox
from heavy.tools.sandbox.sessions import SessionBounds, Sessions
from heavy.tools.traces import TraceLimits, trace_tools
from heavy.tools.web.extract import ExtractLimits, Extractor
from heavy.tools.web.fetch import WebFetchTool
from heavy.tools.web.guard import Rules
from heavy.tools.web.http import Web, WebLimits
from heavy.tools.web.robots import Robots
from heavy.tools.web.search import WebSearchTool

_log = logging.getLogger(__name__)

Wrap = Callable[[Tool], Tool]


class ToolBox:
    """The tools of one process, ready to be called, and why others are missing."""

    def __init__(
        self,
        tools: Sequence[Tool],
        missing: dict[str, HeavyError],
        cache: ToolCache | None,
        kept: Sequence[object] = (),
        servers: Sequence[McpServer] = (),
        wrap: Wrap = lambda tool: tool,
        replaying: bool = False,
        sandbox: str = "",
    ) -> None:
        """`kept`: what is `Lasting` or `Closing`, below the wrappers of `tools`. `sandbox`: see there.

        `wrap` puts the same wrappers around what `servers` turn out to offer.
        """
        self._kept = (*kept, *servers)
        self._servers = {server.name: server for server in servers}
        self._wrap = wrap
        self._replaying = replaying
        self.sandbox = sandbox
        """Which walls stand around generated code, and what lacks; empty where none is run."""
        self._tools = {tool.spec.name: tool for tool in tools}
        self._missing = dict(missing)
        self._cache = cache

    @property
    def missing(self) -> dict[str, str]:
        """Tools that cannot work here, and what would mend it."""
        away = {
            every_tool(server.name): server.problem for server in self._servers.values() if server.problem
        }
        return {name: error.message for name, error in self._missing.items()} | away

    def select(
        self, names: Sequence[str], reader: TraceReader | None = None, limits: TraceLimits | None = None
    ) -> tuple[Tool, ...]:
        """The tools of one trajectory, in the order of `names`. With a `reader` they may be trace tools.

        Raises `ConfigError` for a name that is no tool, and a missing tool's own error.
        """
        known = dict(self._tools)
        if reader is not None:
            known |= {tool.spec.name: tool for tool in trace_tools(reader, limits)}
        chosen: dict[str, Tool] = {}
        for name in names:
            server, separator, _ = name.partition(MCP_SEPARATOR)
            if name in self._missing:
                raise self._missing[name]
            if separator and server in self._servers:
                known |= self._offered(server)
            if name == every_tool(server):
                chosen |= self._offered(server)
            elif name in known:
                chosen[name] = known[name]
            else:
                raise ConfigError(
                    f"There is no tool called {name!r}; there are {', '.join(known) or 'none'}."
                )
        return tuple(Remembering(tool) if tool.spec.stateful else tool for tool in chosen.values())

    def _offered(self, name: str) -> dict[str, Tool]:
        """What an MCP server offers now, or offered when it was last there."""
        server, wrap = self._servers[name], self._wrap
        if not server.tools:
            server.check()
        return {tool.spec.name: wrap(tool) for tool in tools_of(server)}

    async def end(self, run: RunId, trajectory: TrajectoryId) -> None:
        """A trajectory is over: what its tools kept for it goes."""
        for kept in self._kept:
            if isinstance(kept, Lasting):
                await kept.end(run, trajectory)

    def shared_in_run(self, tool: Tool) -> Tool:
        """`tool` with what it declares cacheable shared among one run's trajectories, and nobody else."""
        if self._replaying:
            return self._wrap(tool)
        if self._cache is None or not tool.spec.cacheable:
            return tool
        return CachedTool(tool, self._cache, CachePolicy(scope="run"))

    async def close(self) -> None:
        """End executions under way, close the cache and the tools; safe to call twice."""
        if self._cache is not None:
            await self._cache.close()
        for kept in reversed(self._kept):
            if isinstance(kept, Closing):
                await kept.close()


async def open_tools(
    config: ToolsConfig = DEFAULT, *, cache: ToolCache | None = None, files: FileReader | None = None
) -> ToolBox:
    """Make and try every tool that is on. One that cannot work is missing, not fatal.

    `files`: where tools read the files that callers gave.

    The wrappers, from the inside out: the tool, then the cache (of which the box then is the owner).
    With a recording to replay, that stands in place of both. Time-outs, arguments and clipping are the
    toolset's; tracing is the runner's. Raises `ConfigError` for a recording that cannot be read.
    """

    recording = load_recording(config.replay.file) if config.replay else None
    live = config.replay is None or config.replay.missing == "live"

    def wrap(tool: Tool) -> Tool:
        if recording is not None and config.replay is not None:
            return ReplayedTool(tool, recording, config.replay.missing)
        if cache is None:
            return tool
        name = tool.spec.name
        auth = cache.keys.rights(config.rights(name))
        return CachedTool(tool, cache, config.cache_policy(name), auth=auth)

    tools: list[Tool] = []
    kept: list[object] = []
    missing: dict[str, HeavyError] = {}
    for name, make in _makers(config, files):
        try:
            tool = await make()
        except ConfigError as error:
            _log.warning("the tool %s is not available: %s", name, error)
            missing[name] = error
            continue
        kept.append(tool)
        tools.append(wrap(tool))
    python = config.tools.python
    walls = str(level_of(limits_of(python))) if python is not None and live and PYTHON not in missing else ""
    _log.info("generated code runs behind: %s", walls or "nothing, so none is run")
    servers = await _servers(config, missing) if live else []
    if recording is not None:
        made = {tool.spec.name for tool in tools}
        known = (RecordedTool(name, recording.of(name)) for name in recording.tools if name not in made)
        tools += map(wrap, known)
        missing = {name: error for name, error in missing.items() if name not in recording.tools}
    return ToolBox(tools, missing, cache, kept, servers, wrap, recording is not None, walls)


async def _servers(config: ToolsConfig, missing: dict[str, HeavyError]) -> list[McpServer]:
    """A connection, or the attempts at one, to every MCP server."""
    servers = []
    for name, section in config.mcp.items():
        try:
            servers.append(McpServer(name, section))
        except ConfigError as error:
            _log.warning("the MCP server %s is not available: %s", name, error)
            missing[every_tool(name)] = error
    await asyncio.gather(*(server.start() for server in servers))
    return servers


def _makers(
    config: ToolsConfig, files: FileReader | None
) -> Iterator[tuple[str, Callable[[], Awaitable[Tool]]]]:
    """The tools that are on, and how each is made."""
    if config.tools.python is not None:
        yield PYTHON, partial(_python, config.tools.python, files)
    if config.tools.web_search is not None:
        yield WEB_SEARCH, partial(_web_search, config.tools.web_search, config.network)
    if config.tools.web_fetch is not None:
        yield WEB_FETCH, partial(_web_fetch, config.tools.web_fetch, config.network)


def limits_of(section: PythonSection) -> SandboxLimits:
    """What the operator lets one sandbox use."""
    return SandboxLimits(
        cpu_s=section.cpu_s,
        memory_bytes=section.memory_mib << 20,
        threads=section.threads,
        file_bytes=section.file_mib << 20,
        tmp_bytes=section.files_mib << 20,
        output_bytes=section.output_kib << 10,
        session_cpu_s=section.session_cpu_s,
        cgroup=section.cgroup,
        packages=section.packages,
    )


async def _python(section: PythonSection, files: FileReader | None) -> Tool:
    limits = limits_of(section)
    if section.mode == "session":
        return await _python_session(section, limits, files)
    sandbox = Sandbox(limits, concurrency=section.sandboxes_max or None)
    await sandbox.probe()
    return PythonTool(sandbox, timeout_s=section.timeout_s)


async def _web_search(section: WebSearchSection, network: NetworkSection) -> Tool:
    return WebSearchTool(
        section.provider,
        Rules(block_hosts=network.block_hosts),
        url=section.url,
        key=secret_of(section.api_key_env, "[tools.web_search]"),
        results_max=section.results_max,
        tries_max=section.tries_max,
        at_once_max=section.calls_at_once_max,
        timeout_s=section.timeout_s,
    )


async def _web_fetch(section: WebFetchSection, network: NetworkSection) -> Tool:
    extractor = Extractor(
        ExtractLimits(section.text_chars_max, section.pdf_pages_max), bytes_max=section.bytes_max
    )
    await extractor.probe()
    web = Web(
        Rules(section.ports, frozenset(network.block_hosts), frozenset(network.allow_private)),
        WebLimits(
            bytes_max=section.bytes_max,
            redirects_max=section.redirects_max,
            at_once_max=section.at_once_max,
            per_host_at_once_max=section.per_host_at_once_max,
            per_host_delay_s=section.per_host_delay_s,
            user_agent=section.user_agent,
        ),
    )
    robots = Robots(web) if section.robots == "obey" else None
    return WebFetchTool(web, extractor, robots, page_chars=section.page_chars, timeout_s=section.timeout_s)


async def _python_session(section: PythonSection, limits: SandboxLimits, files: FileReader | None) -> Tool:
    await Sandbox(limits).probe()
    bounds = SessionBounds(section.sessions_max, section.session_idle_s, section.session_lifetime_s)
    if section.sandboxes_max:
        bounds = replace(bounds, computing_max=section.sandboxes_max)
    return PythonSessionTool(
        Sessions(limits, bounds),
        timeout_s=section.timeout_s,
        attachment_bytes=section.attachment_kib << 10,
        kept_bytes=section.returned_mib << 20,
        files=files,
    )
