"""Settings of every Heavy process, read once from the environment (`HEAVY_*`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, SecretStr, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from heavy.core.errors import ConfigError

Seconds = Annotated[float, Field(gt=0)]


class Settings(BaseSettings):
    """All settings, with their defaults. Secrets never print."""

    model_config = SettingsConfigDict(env_prefix="HEAVY_", extra="ignore", frozen=True)

    store_url: str = ""
    """redis://, rediss:// or unix:// URL of the run store; it must not evict."""
    cache_url: str = ""
    """The tool cache; it may evict. Empty: the run store's server."""
    cache_secret: SecretStr = SecretStr("")
    """Keys the HMAC in cache keys. Empty: derived from the store's URL, which every runner shares."""
    store_timeout_s: Seconds = 5.0
    """How long one store operation may take, retries included, before the run ends as unavailable."""
    retention_s: Seconds = 7 * 24 * 3600.0
    """How long a run stays readable after it ended."""
    run_files_bytes_max: Annotated[int, Field(ge=0)] = 32 << 20
    """The files of one run together: those its caller gave and those its tools made."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 50051
    http_port: Annotated[int, Field(ge=0, le=65535)] = 8080
    tokens_file: str = ""
    """Bearer tokens, one `tenant:token` a line, `tenant:token:admin` for administrators,
    `tenant:token:metrics` for who reads metrics. Empty: no token is asked for, and only loopback is
    served."""

    rpcs_max: Annotated[int, Field(gt=0)] = 1_000
    """Calls one server has open at once, watchers included."""
    runs_max: Annotated[int, Field(gt=0)] = 32
    """Runs under way in one coordinator."""
    queue_max: Annotated[int, Field(ge=0)] = 64
    """Runs accepted but waiting for their turn; beyond, callers are told when to retry."""
    attach_grace_s: Seconds = 10.0
    """How long a run whose caller went away waits for the same request_id to come back."""
    lease_s: Seconds = 10.0
    """How long a run outlives a coordinator that stopped renewing its lease."""
    deadline_max_s: Seconds = 4 * 3600.0

    profile_dirs: str = ""
    """More directories with profiles (*.toml), separated by ':'."""
    profile: str = ""
    """The profile of arms and aggregator where a policy names none. Empty: the only one being served."""
    served: str = ""
    """The profiles that this server serves, separated by ','. Empty: every profile it knows."""

    tools_file: str = ""
    """Which tools there are and what they may do (TOML); every runner needs it at the same path. Empty: the
    stateless `python` alone."""
    runner_in_flight_max: Annotated[int, Field(gt=0)] = 64
    """Trajectories one runner executes at once."""
    delta_interval_ms: Annotated[int, Field(ge=10, le=1000)] = 60
    checkpoint_tokens: Annotated[int, Field(gt=0)] = 4_000
    checkpoint_s: Seconds = 30.0
    generation_silence_s: Seconds = 120.0
    """How long an engine may send nothing at all before the generation is given up."""
    route_wait_s: Annotated[float, Field(ge=0)] = 20.0
    """How long a generation may wait for the replica that holds its prompt while another one has room."""
    route_lead_s: Annotated[float, Field(ge=0)] = 30.0
    """How long an arm may wait for another one of its run that prefills the prompt they share; 0: never."""
    reservation_ttl_s: Seconds = 15.0
    """How long KV memory stays reserved for the generations of a runner that died."""

    engine_log_dir: str = ""
    """A directory, on each node, for all that its engines say: at most two files of 64 MB an engine, for a
    week. Empty: only their last lines are kept, in the run store, for a day."""
    metrics_interval_s: Seconds = 2.0
    """How often a coordinator looks at the directory for what its metrics say of replicas and the store."""
    otlp_endpoint: str = ""
    """Where traces go (OTLP over gRPC). Empty: tracing is off."""
    service_name: str = "heavy"
    log_level: str = "INFO"

    @property
    def profile_directories(self) -> tuple[str, ...]:
        """The directories of `profile_dirs`."""
        return tuple(part for part in self.profile_dirs.split(":") if part)

    @property
    def served_names(self) -> tuple[str, ...]:
        """The profile names of `served`."""
        return tuple(name.strip() for name in self.served.split(",") if name.strip())

    @classmethod
    def read(cls) -> Settings:
        """The settings of this process's environment. Raises `ConfigError` naming every wrong variable."""
        try:
            return cls()
        except ValidationError as error:
            raise ConfigError(
                "\n".join(_fault(cls.model_config["env_prefix"], e) for e in error.errors())
            ) from error

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Settings:
        """Settings from `HEAVY_*` variables of a mapping alone, wherever it came from."""
        prefix = cls.model_config["env_prefix"]
        given = {k.removeprefix(prefix).lower(): v for k, v in environment.items() if k.startswith(prefix)}
        return cls.model_validate(given)

    def environment(self) -> dict[str, str]:
        """The variables from which `of` builds the same settings; secrets in the clear, so do not print."""
        values: dict[str, str] = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            text = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
            values[f"{self.model_config['env_prefix']}{name.upper()}"] = text
        return values


def _fault(prefix: str, found: ErrorDetails) -> str:
    name = f"{prefix}{str(found['loc'][0]).upper()}"
    return f"{name} is {found['input']!r:.80}; {found['msg'][:1].lower()}{found['msg'][1:]}."
