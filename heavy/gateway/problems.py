"""Errors as HTTP: a status for each kind of the error tree, and a body that says what to do."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from heavy.core import codec, errors
from heavy.core.errors import FieldViolation, HeavyError
from heavy.gateway.callers import Handler

log = logging.getLogger(__name__)

RETRY_AFTER_S: Final = 1.0
"""When to try again after something that passes by itself but does not say when."""

STATUSES: Final[dict[type[HeavyError], int]] = {
    HeavyError: 500,
    errors.InvalidRequest: 400,
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.RequestConflict: 409,
    errors.Overloaded: 429,
    errors.LimitExceeded: 429,
    errors.ContextOverflow: 400,
    errors.LeaseLost: 409,
    errors.StoreUnavailable: 503,
    errors.ServerUnavailable: 503,
    errors.RunnerLost: 503,
    errors.EngineError: 502,
}
"""A kind that is not here answers as the nearest one above it in the tree."""

_FIELDS: Final = (
    ("policy.budget.", "policy."),
    ("policy.sampling.", "policy."),
    ("policy.members.", "policy."),
    ("policy.straggler_grace", "policy.straggler_grace_s"),
    ("policy.deadline", "policy.deadline_s"),
)
"""Where the JSON of a policy is flat, and the coordinator names fields as the protocol buffers do."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What a caller reads of an error. `retry_after_s` where another attempt makes sense."""

    code: str
    message: str
    violations: tuple[FieldViolation, ...] = ()
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """The body of an answer that is no success."""

    error: Problem


def status_of(error: HeavyError) -> int:
    """The HTTP status of an error."""
    return next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)


def problem_of(error: HeavyError) -> Problem:
    """What its caller is told."""
    violations: tuple[FieldViolation, ...] = ()
    message = error.message
    if isinstance(error, errors.InvalidRequest):
        violations = tuple(FieldViolation(_field(v.field), v.problem) for v in error.violations)
        message = errors.InvalidRequest(violations).message
    return Problem(error.code, message, violations, _retry_after_s(error))


def response_of(error: HeavyError) -> web.Response:
    """The answer that an error becomes."""
    problem, status = problem_of(error), status_of(error)
    response = web.Response(
        body=codec.dump(Failed(problem)), status=status, content_type="application/json", charset="utf-8"
    )
    if status == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="heavy"'
    if problem.retry_after_s is not None:
        response.headers["Retry-After"] = str(math.ceil(problem.retry_after_s))
    return response


@web.middleware
async def told_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Errors as JSON. One that is not in the error tree is a defect: it is logged, and nothing of it told."""
    try:
        return await handler(request)
    except HeavyError as error:
        return response_of(error)
    except web.HTTPException:
        raise
    except Exception:
        log.exception("%s %s failed", request.method, request.path)
        return response_of(HeavyError("An internal error; the server's log says more."))


def _retry_after_s(error: HeavyError) -> float | None:
    if isinstance(error, errors.Overloaded):
        return error.retry_after_s
    return RETRY_AFTER_S if status_of(error) == 503 else None


def _field(path: str) -> str:
    for long, short in _FIELDS:
        if path == long or (path.startswith(long) and long.endswith(".")):
            return short + path.removeprefix(long)
    return path
