"""The operator's tools configuration: one TOML file (`HEAVY_TOOLS_FILE`), validated whole, then frozen.

A tool is on when the file has its table. Without a file there is the stateless `python` alone. Keys are
never in the file: it names the environment variables that hold them.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from heavy.core.errors import ConfigError
from heavy.profiles.faults import TomlFile
from heavy.tools.recording import load_recording

PYTHON: Final = "python"
WEB_SEARCH: Final = "web_search"
WEB_FETCH: Final = "web_fetch"
MCP_SEPARATOR: Final = "__"
"""Between the name of an MCP server and that of its tool. No built-in tool's name holds it."""

Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(gt=0)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]+([_-][a-z0-9]+)*$", max_length=30)]
EnvironmentName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CachePolicy(_Part):
    """For whom a tool's results are kept, and how long. What a tool declares may narrow it, never widen."""

    scope: Literal["off", "run", "tenant", "global"] = "tenant"
    ttl_s: Seconds | None = None
    """None: the cache's own default."""
    stale_if_error_s: Annotated[float, Field(ge=0)] = 0.0
    """How long beyond `ttl_s` a result may stand in, labelled as stale, for a call that failed."""
    negative_ttl_s: Annotated[float, Field(ge=0)] = 0.0
    """How long a failure that would come again is kept; 0: not at all."""
    early_refresh: bool = True
    """Whether a result that is asked often is fetched anew, beside its readers, before its time is up."""


class ToolSection(_Part):
    """What every tool may be given."""

    timeout_s: Seconds = 30.0
    cache: CachePolicy | None = None
    """None: as the tool itself declares."""


class PythonSection(ToolSection):
    """`[tools.python]`: code in a sandbox. Sizes are per call where nothing is kept, else per session."""

    mode: Literal["stateless", "session"] = "stateless"
    """`session`: one interpreter per trajectory that keeps its variables and files."""
    cpu_s: Positive = 10
    """CPU seconds of one call."""
    memory_mib: Annotated[int, Field(ge=64)] = 1024
    threads: Annotated[int, Field(ge=2)] = 32
    """Processes are one; this counts its threads."""
    file_mib: Positive = 32
    files_mib: Positive = 64
    """All files of a call or session together."""
    output_kib: Positive = 64
    sandboxes_max: Count = 0
    """Interpreters that compute at once; 0: twice the cores."""
    cgroup: str = ""
    """A cgroup v2 directory delegated to the runner, with memory and pids enabled for its children; empty:
    rlimits alone bound a sandbox."""
    packages: tuple[str, ...] = ()
    """Directories (such as an environment's site-packages) whose content can be imported, read-only."""
    sessions_max: Positive = 64
    """Interpreters kept at once; beyond, the one idle for longest is lost."""
    session_cpu_s: Positive = 600
    """CPU seconds of a session's calls together."""
    session_idle_s: Seconds = 900.0
    session_lifetime_s: Seconds = 4 * 3600.0
    attachment_kib: Positive = 256
    """How much of one file the model may be shown."""
    returned_mib: Positive = 4
    """Larger files are not given to the caller."""


class WebSearchSection(ToolSection):
    """`[tools.web_search]`: results of one provider."""

    provider: Literal["searxng", "tavily", "brave", "exa", "serper"]
    url: str = ""
    """The provider's address; needed for searxng, else the provider's own unless given."""
    api_key_env: str = ""
    """The environment variable with the key; needed for all but searxng."""
    results_max: Annotated[int, Field(ge=1, le=20)] = 10
    calls_at_once_max: Positive = 8
    tries_max: Annotated[int, Field(ge=1, le=5)] = 2

    @model_validator(mode="after")
    def _complete(self) -> WebSearchSection:
        if self.provider == "searxng" and not self.url:
            raise ValueError('provider = "searxng" needs url = "http://HOST:PORT" of your SearXNG')
        if self.provider != "searxng" and not self.api_key_env:
            raise ValueError(
                f'provider = "{self.provider}" needs api_key_env = the variable that holds its key'
            )
        return self


class WebFetchSection(ToolSection):
    """`[tools.web_fetch]`: the readable text of a page."""

    timeout_s: Seconds = 45.0
    bytes_max: Positive = 8 << 20
    """Of a document, both as sent and as decompressed."""
    text_chars_max: Positive = 2_000_000
    """Of a document's readable text; what is beyond is left out, and said so."""
    page_chars: Annotated[int, Field(ge=1_000)] = 20_000
    """How much one call shows; longer documents are read page by page."""
    pdf_pages_max: Positive = 300
    redirects_max: Annotated[int, Field(ge=0, le=20)] = 5
    ports: tuple[Annotated[int, Field(ge=1, le=65535)], ...] = (80, 443)
    per_host_at_once_max: Positive = 2
    per_host_delay_s: Annotated[float, Field(ge=0)] = 0.2
    """Between two requests to one host."""
    at_once_max: Positive = 16
    robots: Literal["obey", "ignore"] = "obey"
    user_agent: str = "heavy-web-fetch/0.1"


class ToolsTable(_Part):
    """`[tools.*]`: built-in tools. One that is not there is off."""

    python: PythonSection | None = None
    web_search: WebSearchSection | None = None
    web_fetch: WebFetchSection | None = None


class NetworkSection(_Part):
    """`[network]`: what web_search shows and web_fetch visits."""

    block_hosts: tuple[str, ...] = ()
    """Hosts, with all hosts below them, that are never visited nor shown, such as a benchmark's own."""
    allow_private: tuple[str, ...] = ()
    """`HOST:PORT` of servers that may be visited although their addresses are private. Not recommended."""

    @field_validator("block_hosts")
    @classmethod
    def _plain_hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            if not host or any(mark in host for mark in "/:@* "):
                raise ValueError(f"{host!r} is not a host name such as example.org (no scheme, no path)")
        return tuple(host.lower().strip(".") for host in hosts)

    @field_validator("allow_private")
    @classmethod
    def _host_and_port(cls, places: tuple[str, ...]) -> tuple[str, ...]:
        for place in places:
            host, _, port = place.rpartition(":")
            if not host or not port.isdigit():
                raise ValueError(f"{place!r} is not HOST:PORT such as intranet.example:8080")
        return tuple(place.lower() for place in places)


class McpSection(_Part):
    """`[mcp.NAME]`: a server of tools, over stdio (`command`) or streamable HTTP (`url`)."""

    command: tuple[str, ...] = ()
    """The program and its arguments. It runs as the runner does: name only servers you trust so far."""
    env: Mapping[str, EnvironmentName] = {}
    """Variables the server gets: its name for each, and the name of ours that holds the value."""
    cwd: str = ""
    url: str = ""
    headers: Mapping[str, EnvironmentName] = {}
    """HTTP headers, and for each the environment variable that holds its whole value."""
    tools: tuple[str, ...] = ("*",)
    """The server's tools that are offered, by its own names; `*` stands for any characters."""
    trust: Literal["none", "output"] = "none"
    """`output`: what it says is not marked as untrusted. Its hints are never trusted to widen anything."""
    effects: Literal["pure", "read", "write"] = "write"
    """What its calls do at most."""
    read_hints: bool = False
    """Whether a tool that hints that it only reads counts as `read` instead of `effects`."""
    timeout_s: Seconds = 60.0
    start_timeout_s: Seconds = 30.0
    calls_at_once_max: Positive = 8
    message_bytes_max: Positive = 16 << 20
    """Of one message of the protocol; a server that sends a larger one is cut off."""
    output_bytes_max: Positive = 4 << 20
    """Of a result, as the cache and the transcript may have it."""
    tools_max: Positive = 128
    description_chars_max: Positive = 4_000
    reconnect_max_s: Seconds = 60.0
    """The longest pause between two attempts to reach a server that is gone."""
    cache: CachePolicy | None = None
    """None: its results are not cached."""
    cache_tools: Mapping[str, CachePolicy] = {}
    """The same for single tools, by the server's own names."""

    @model_validator(mode="after")
    def _one_transport(self) -> McpSection:
        if bool(self.command) == bool(self.url):
            raise ValueError('needs either command = ["PROGRAM", "ARGUMENT", ...] or url = "https://..."')
        if self.url and not self.url.startswith(("http://", "https://")):
            raise ValueError("url must begin with http:// or https://")
        return self

    def offers(self, tool: str) -> bool:
        """Whether the operator lets the server's tool of that name be used."""
        return any(fnmatchcase(tool, pattern) for pattern in self.tools)


class RedactSection(_Part):
    """`[redact]`: what never appears in spans, logs and transcripts."""

    env: tuple[EnvironmentName, ...] = ()
    """More environment variables whose values are secret, besides every one the configuration names."""
    patterns: bool = True
    """Whether well-known forms of keys (private keys, cloud and API tokens) are redacted too."""


class BreakerSection(_Part):
    """`[cache.breaker]`: when the cache's server is left alone; see `heavy.tools.cache_breaker`."""

    failures_max: Positive | None = None
    slow_s: Seconds | None = None
    rest_s: Seconds | None = None


class CacheSection(_Part):
    """`[cache]`: bounds of the tool cache as a whole; see `heavy.tools.cache_server.CacheLimits`."""

    ttl_s: Seconds | None = None
    lease_s: Seconds | None = None
    command_s: Seconds | None = None
    wait_share: Annotated[float, Field(gt=0, lt=1)] | None = None
    breaker: BreakerSection = BreakerSection()


class ReplaySection(_Part):
    """`[replay]`: results come from a recording (`heavy record`), and no tool does anything."""

    file: str
    missing: Literal["error", "live"] = "error"
    """What becomes of a call that was not recorded: an error that says so, or it is really made."""


class ToolsConfig(_Part):
    """The whole file."""

    tools: ToolsTable = ToolsTable()
    network: NetworkSection = NetworkSection()
    mcp: Mapping[Name, McpSection] = {}
    cache: CacheSection = CacheSection()
    redact: RedactSection = RedactSection()
    replay: ReplaySection | None = None

    @property
    def names(self) -> ToolNames:
        """The names a policy may ask for."""
        return ToolNames(self)

    @property
    def file_tools(self) -> tuple[str, ...]:
        """The tools in whose working directory a caller's files stand."""
        python = self.tools.python
        return (PYTHON,) if python is not None and python.mode == "session" else ()

    def cache_policy(self, tool: str) -> CachePolicy | None:
        """The operator's word on caching a tool's results; None: as the tool itself declares."""
        if tool in ToolsTable.model_fields:
            section = getattr(self.tools, tool)
            return section.cache if section is not None else None
        server, _, name = tool.partition(MCP_SEPARATOR)
        found = self.mcp.get(server)
        return found.cache_tools.get(name, found.cache or CachePolicy(scope="off")) if found else None

    def rights(self, tool: str) -> tuple[str, ...]:
        """The values of the secrets a tool works with: whose rights its results depend on."""
        server, separator, _ = tool.partition(MCP_SEPARATOR)
        names: tuple[str, ...] = ()
        if separator and server in self.mcp:
            section = self.mcp[server]
            names = tuple(sorted({*section.env.values(), *section.headers.values()}))
        elif tool == WEB_SEARCH and self.tools.web_search and self.tools.web_search.api_key_env:
            names = (self.tools.web_search.api_key_env,)
        return tuple(os.environ.get(name, "") for name in names)

    def environment_names(self) -> frozenset[str]:
        """Every environment variable that is named as the holder of a secret."""
        named = {*self.redact.env}
        if self.tools.web_search and self.tools.web_search.api_key_env:
            named.add(self.tools.web_search.api_key_env)
        for server in self.mcp.values():
            named |= {*server.env.values(), *server.headers.values()}
        return frozenset(named)


def every_tool(server: str) -> str:
    """The name by which a policy asks for all that an MCP server offers."""
    return f"{server}{MCP_SEPARATOR}*"


class ToolNames(Collection[str]):
    """The names a policy may ask for, as far as they can be known before MCP servers were asked.

    `server__*` means every tool that server offers; a single one is `server__tool`.
    """

    def __init__(self, config: ToolsConfig) -> None:
        self._built_in = tuple(
            name for name in ToolsTable.model_fields if getattr(config.tools, name) is not None
        )
        self._servers = dict(config.mcp)
        self._recorded = load_recording(config.replay.file).tools if config.replay else ()

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str):
            return False
        if name in self._recorded:
            return True
        server, separator, tool = name.partition(MCP_SEPARATOR)
        if separator and server in self._servers:
            return tool == "*" or self._servers[server].offers(tool)
        return name in self._built_in

    def __iter__(self) -> Iterator[str]:
        yield from self._built_in
        yield from (name for name in self._recorded if name not in self._built_in)
        for server, section in self._servers.items():
            yield every_tool(server)
            yield from (f"{server}{MCP_SEPARATOR}{tool}" for tool in section.tools if "*" not in tool)

    def __len__(self) -> int:
        return sum(1 for _ in self)


DEFAULT: Final = ToolsConfig(tools=ToolsTable(python=PythonSection()))
"""What there is without a file."""


def read_tools(file: str) -> ToolsConfig:
    """The configuration in `file`; the default one for an empty name.

    Raises `ConfigError` that names file, line, field, what is wrong and how to mend it.
    """
    if not file:
        return DEFAULT
    toml = TomlFile.read(Path(file).expanduser(), "tools file")
    try:
        config = ToolsConfig.model_validate(dict(toml.values))
    except ValidationError as error:
        raise toml.faults(error, ToolsConfig, _MENDS) from error
    for number, path in enumerate(config.tools.python.packages if config.tools.python else ()):
        if not os.path.isdir(path):
            raise toml.fault(("tools", PYTHON, "packages", number), f"names {path!r}, which is no directory")
    if config.replay is not None and not Path(config.replay.file).expanduser().is_file():
        raise toml.fault(("replay", "file"), f"names {config.replay.file!r}, which is no file")
    return config


_MENDS: Final = {
    "tools.web_search.provider": 'add provider = "searxng", "tavily", "brave", "exa" or "serper"',
}


def secret_of(variable: str, wanted_by: str) -> str:
    """The value of an environment variable that holds a key. Raises `ConfigError` when it is not set."""
    value = os.environ.get(variable, "")
    if variable and not value:
        raise ConfigError(
            f"{wanted_by} needs a key in the environment variable {variable}, which is not set."
        )
    return value
