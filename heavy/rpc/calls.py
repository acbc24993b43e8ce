"""What every call has around it: a span, and errors that leave as one kind of status."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

from grpc_status import rpc_status
from opentelemetry.trace import SpanKind

from heavy.coordinator.tenants import Caller
from heavy.core.errors import Forbidden, HeavyError
from heavy.telemetry import names
from heavy.telemetry.tracing import Tracing, traceparent_of
from heavy.wire.status import to_status

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Call:
    """For whom a call is made, and the trace context that its work continues (empty: none)."""

    tenant: str
    traceparent: str
    admin: bool = False

    def require_admin(self) -> None:
        """Raises `Forbidden` for anybody but an administrator."""
        if not self.admin:
            raise Forbidden(
                "This call is for administrators: use a token whose line in the tokens file ends in `:admin`."
            )


@asynccontextmanager
async def serving(
    context: Any, method: str, caller: Caller, tracing: Tracing, service: str = "HeavyService"
) -> AsyncIterator[Call]:
    """Around a handler: its span, below the caller's if it sent a `traceparent`; its errors as status.

    An error that is not in the error tree is a defect: it is logged, and the caller learns nothing of it.
    """
    sent = dict(context.invocation_metadata() or ()).get("traceparent", "")
    try:
        with tracing.span(
            f"heavy.v1.{service}/{method}", str(sent), {names.TENANT: caller.tenant}, SpanKind.SERVER
        ) as span:
            yield Call(caller.tenant, traceparent_of(span), caller.admin)
    except HeavyError as error:
        await refuse(context, error)
    except Exception:
        log.exception("%s failed for tenant %s", method, caller.tenant)
        await refuse(context, HeavyError("An internal error; the server's log says more"))


@asynccontextmanager
async def closing(events: AsyncIterator[Any]) -> AsyncIterator[None]:
    """Close a watch that ends early at once, not when it happens to be collected."""
    try:
        yield
    finally:
        close = getattr(events, "aclose", None)
        if close is not None:
            await close()


async def refuse(context: Any, error: HeavyError) -> NoReturn:
    """End a call with the status of `error`, details and all."""
    status = rpc_status.to_status(to_status(error))  # type: ignore[no-untyped-call]
    await context.abort(status.code, status.details, status.trailing_metadata)
    raise AssertionError("abort returned")
