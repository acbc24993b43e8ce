"""What a request can be refused with, in OpenAI's error JSON.

ApiError
├── BadRequest          400  the caller's input: names the field and says what to do
├── NotFound            404  no such model
├── QueueFull           503  the bounded queue has no room; retry after a while
├── Draining            503  the server finishes what it has and takes nothing new
└── EngineFailed        500  the engine broke; the message says how
"""

from __future__ import annotations

from typing import Any, ClassVar


class ApiError(Exception):
    """A refusal with an HTTP status. `param` names the offending field, `retry_after_s` when to return."""

    status: ClassVar[int] = 500
    kind: ClassVar[str] = "server_error"
    code: ClassVar[str] = "internal_error"

    def __init__(self, message: str, *, param: str | None = None, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s

    def body(self) -> dict[str, Any]:
        """The JSON that OpenAI's clients read."""
        return {
            "error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code},
        }


class BadRequest(ApiError):
    """The caller's input cannot be served as it is."""

    status = 400
    kind = "invalid_request_error"
    code = "invalid_value"


class ContextOverflow(BadRequest):
    """Prompt and completion do not fit the model's context."""

    code = "context_length_exceeded"


class NotFound(ApiError):
    """The named model is not served here."""

    status = 404
    kind = "invalid_request_error"
    code = "model_not_found"


class QueueFull(ApiError):
    """No room in the bounded queue."""

    status = 503
    kind = "overloaded_error"
    code = "queue_full"


class Draining(ApiError):
    """The server is on its way out."""

    status = 503
    kind = "overloaded_error"
    code = "draining"


class EngineFailed(ApiError):
    """The engine itself broke, or could not go on with this generation."""

    code = "engine_failed"
