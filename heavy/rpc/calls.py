"""What every call has around it: a span, and errors that leave as one kind of status."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

from grpc_status import rpc_status
from opentelemetry.trace import SpanKind

from heavy.core.errors import HeavyError
from heavy.telemetry import names
from heavy.telemetry.tracing import Tracing, traceparent_of
from heavy.wire.status import to_status

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Call:
    """For whom a call is made, and the trace context that its work continues (empty: none)."""

    tenant: str
    traceparent: str


@asynccontextmanager
async def serving(context: Any, method: str, tenant: str, tracing: Tracing) -> AsyncIterator[Call]:
    """Around a handler: its span, below the caller's if it sent a `traceparent`; its errors as status.

    An error that is not in the error tree is a defect: it is logged, and the caller learns nothing of it.
    """
    sent = dict(context.invocation_metadata() or ()).get("traceparent", "")
    try:
        with tracing.span(
            f"heavy.v1.HeavyService/{method}", str(sent), {names.TENANT: tenant}, SpanKind.SERVER
        ) as span:
            yield Call(tenant, traceparent_of(span))
    except HeavyError as error:
        await refuse(context, error)
    except Exception:
        log.exception("%s failed for tenant %s", method, tenant)
        await refuse(context, HeavyError("An internal error; the server's log says more"))


async def refuse(context: Any, error: HeavyError) -> NoReturn:
    """End a call with the status of `error`, details and all."""
    status = rpc_status.to_status(to_status(error))  # type: ignore[no-untyped-call]
    await context.abort(status.code, status.details, status.trailing_metadata)
    raise AssertionError("abort returned")
