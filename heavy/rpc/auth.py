"""Every call is made by somebody: an interceptor that names the caller, or refuses the call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, Final, TypeAlias

import grpc

from heavy.coordinator.tenants import DEFAULT_TENANT, Caller, Tenants
from heavy.core.errors import Unauthenticated
from heavy.rpc.calls import refuse

_NOBODY: Final = Caller(DEFAULT_TENANT)
current_caller: Final[ContextVar[Caller]] = ContextVar("current_caller", default=_NOBODY)
"""For whom the call in progress is made. Set before the handler runs, in the handler's own task."""

OPEN_METHODS: Final = frozenset({"/grpc.health.v1.Health/Check"})
"""What orchestrators call without a token. Not Watch: anybody could hold such streams open."""


Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class TenantInterceptor(grpc.aio.ServerInterceptor):
    """Looks at the `authorization` metadata of every call before anything else does."""

    def __init__(self, tenants: Tenants) -> None:
        self._tenants = tenants

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """The handler of the call, or one that refuses it with UNAUTHENTICATED."""
        if handler_call_details.method in OPEN_METHODS:
            return await continuation(handler_call_details)
        metadata = handler_call_details.invocation_metadata or ()
        given = [str(value) for key, value in metadata if key == "authorization"]
        try:
            current_caller.set(self._tenants.identify(given))
        except Unauthenticated as error:
            return _refusing(error)
        return await continuation(handler_call_details)


def _refusing(error: Unauthenticated) -> Handler:
    async def handler(_request: object, context: Any) -> None:
        await refuse(context, error)

    return grpc.unary_unary_rpc_method_handler(handler)
