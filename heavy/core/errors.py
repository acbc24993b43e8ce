"""The one error tree. Foreign errors are translated into it once, `from` the original.

    HeavyError
    ├── InvalidRequest          the caller's fields, each named
    ├── Unauthenticated         no token, or a wrong one
    ├── Forbidden               a caller who is known but may not do this
    ├── NotFound                no such run, trajectory, profile, label
    ├── RequestConflict         a request_id came back with another request
    ├── Overloaded              full; says when to try again
    ├── InvalidDataset          a file of questions that cannot be read; says which rows, and why
    ├── JudgeFailed             no verdict on an answer; asking again may bring one
    ├── ConfigError             settings or a profile that cannot work; raised before anything starts
    ├── CannotWrite             a file of results: the disk is full, or takes nothing
    ├── LimitExceeded           a limit was hit: which, how much, how much was allowed
    │   ├── BudgetExhausted     tokens, money or tool calls of a run
    │   └── ContextOverflow     a request longer than the model's context
    ├── LeaseLost               another owner has the run, or nobody: stop writing
    ├── StoreUnavailable        the run store did not answer within its bound
    ├── ServerUnavailable       the Heavy server cannot be reached, or is going down
    ├── RunnerLost              the process that executed a trajectory is gone
    └── EngineError             a model server: every one says which replica
        ├── EngineRefused       it rejected the request (4xx): trying again will not help
        ├── EngineUnavailable   it is down, full or draining: another replica may serve
        ├── EngineTimeout       it went silent for longer than allowed
        └── MalformedStream     what it sent cannot be read

Every error crosses process borders, so all of them pickle.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


class HeavyError(Exception):
    """Root of Heavy's errors. `code` is stable and for machines; the message says what to do."""

    code = "internal"

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.details)

    def __str__(self) -> str:
        return self.message


def _rebuild(kind: type[HeavyError], message: str, details: dict[str, Any]) -> HeavyError:
    error = kind.__new__(kind)
    HeavyError.__init__(error, message, **details)
    return error


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One invalid field, by its path in the request, and what would be valid."""

    field: str
    problem: str


class InvalidRequest(HeavyError):
    """The request cannot be accepted as it is. Every invalid field is listed."""

    code = "invalid_request"

    def __init__(self, violations: tuple[FieldViolation, ...]) -> None:
        text = "; ".join(f"{v.field}: {v.problem}" for v in violations)
        super().__init__(f"The request is invalid: {text}", violations=violations)

    @property
    def violations(self) -> tuple[FieldViolation, ...]:
        """The invalid fields."""
        found: tuple[FieldViolation, ...] = self.details["violations"]
        return found


class Unauthenticated(HeavyError):
    """No bearer token, or one that is not configured."""

    code = "unauthenticated"


class Forbidden(HeavyError):
    """The caller is known, and may not do this."""

    code = "forbidden"


class NotFound(HeavyError):
    """What was asked for is not there, or not for this tenant."""

    code = "not_found"


class RequestConflict(HeavyError):
    """The same `request_id` was used for a different request."""

    code = "request_conflict"


class Overloaded(HeavyError):
    """No room. `retry_after_s` says when to try again."""

    code = "overloaded"

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message, retry_after_s=retry_after_s)

    @property
    def retry_after_s(self) -> float:
        """Seconds after which another attempt is reasonable."""
        return float(self.details["retry_after_s"])


class ConfigError(HeavyError):
    """A setting or profile that cannot work. Says which, and how to mend it."""

    code = "config"


class CannotWrite(HeavyError):
    """A file of results cannot be written. What had been written before is whole; says how to go on."""

    code = "cannot_write"


class InvalidDataset(HeavyError):
    """A file of questions that cannot be evaluated. Names the rows and what is wrong with each."""

    code = "invalid_dataset"


class JudgeFailed(HeavyError):
    """A judge model gave no verdict, or none that can be read. The answer is ungraded, not wrong."""

    code = "judge_failed"


class LimitExceeded(HeavyError):
    """A limit was hit. `limit` names it; `used` and `allowed` are in the limit's own unit."""

    code = "limit_exceeded"

    def __init__(self, message: str, limit: str, used: float, allowed: float) -> None:
        super().__init__(message, limit=limit, used=used, allowed=allowed)

    @property
    def limit(self) -> str:
        """The name of the limit, with its unit."""
        return str(self.details["limit"])


class BudgetExhausted(LimitExceeded):
    """A run's budget does not allow the next generation."""

    code = "budget_exhausted"


class ContextOverflow(LimitExceeded):
    """The request does not fit into the model's context, whatever may be hidden."""

    code = "context_overflow"


class LeaseLost(HeavyError):
    """The writer no longer owns the run: its lease expired or moved on."""

    code = "lease_lost"


class StoreUnavailable(HeavyError):
    """The run store did not answer within its bound."""

    code = "store_unavailable"


class ServerUnavailable(HeavyError):
    """The Heavy server cannot be reached, or is going down: another attempt may find it again."""

    code = "server_unavailable"


class RunnerLost(HeavyError):
    """The process that executed a trajectory is gone."""

    code = "runner_lost"


class EngineError(HeavyError):
    """A model server failed. `replica` names it."""

    code = "engine"

    def __init__(self, message: str, replica: str = "") -> None:
        super().__init__(message, replica=replica)

    @property
    def replica(self) -> str:
        """The replica's id; empty when none could be chosen."""
        return str(self.details["replica"])


class EngineRefused(EngineError):
    """The server rejected the request; the same request would be rejected again."""

    code = "engine_refused"


class EngineUnavailable(EngineError):
    """The server is down, full or draining; another replica may serve."""

    code = "engine_unavailable"

    def __init__(self, message: str, replica: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(message, replica)
        self.details["retry_after_s"] = retry_after_s

    @property
    def retry_after_s(self) -> float | None:
        """Seconds after which the server itself asks to be tried again; None when it does not say."""
        after: float | None = self.details["retry_after_s"]
        return after


class EngineTimeout(EngineError):
    """The server was silent for longer than allowed."""

    code = "engine_timeout"


class MalformedStream(EngineError):
    """What the server sent cannot be read as a stream of chat completion chunks."""

    code = "malformed_stream"


def first_of(failures: BaseExceptionGroup[HeavyError]) -> HeavyError:
    """The first error of what a task group raised. (Groups nest where task groups do.)"""
    found: BaseException = failures
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    assert isinstance(found, HeavyError)
    return found
