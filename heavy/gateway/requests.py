"""HTTP requests as they come in, read and checked: every invalid field of one is reported at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Annotated, Any, Final, TypeVar

from aiohttp import web
from pydantic import Base64Bytes, BaseModel, ConfigDict, Field, ValidationError

from heavy.coordinator.api import CreateRequest
from heavy.coordinator.conversation import check_conversation, check_request_id
from heavy.coordinator.defaults import PolicyDefaults, fingerprint
from heavy.coordinator.files import check_files
from heavy.core.draft import PolicyDraft
from heavy.core.errors import FieldViolation, InvalidRequest
from heavy.core.files import File, is_digest
from heavy.core.ids import AGGREGATOR, ARMS_MAX, RunId, TrajectoryId, arm, is_run_id, is_run_id_start
from heavy.core.messages import Message, Role
from heavy.core.runs import RunState

BODY_BYTES_MAX: Final = 16 << 20
"""A conversation may have 4 MiB, and files 8, which base64 makes a third larger."""
REASON_CHARS_MAX: Final = 500
RUNS_PER_PAGE_MAX: Final = 200
BRIEFS_PER_PAGE_MAX: Final = 4_000
RECORDS_PER_PAGE_MAX: Final = 500
_TRAJECTORIES: Final = frozenset({"", AGGREGATOR, *map(arm, range(ARMS_MAX))})

Model = TypeVar("Model", bound=BaseModel)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileBody(_Part):
    """A file for the arms' python sessions, its content in base64."""

    name: str
    content: Base64Bytes


class AskBody(_Part):
    """A run to create: `question`, or a whole conversation as `messages`; and `files` beside it."""

    question: str = ""
    messages: tuple[Message, ...] = ()
    files: tuple[FileBody, ...] = ()
    policy: PolicyDraft = PolicyDraft()
    request_id: str = ""

    def conversation(self) -> tuple[Message, ...]:
        """What is asked, as messages."""
        asked = (Message(Role.USER, self.question),) if self.question else ()
        return (*self.messages, *asked)


class CancelBody(_Part):
    """Why a run is cancelled, for people."""

    reason: Annotated[str, Field(max_length=REASON_CHARS_MAX)] = ""


class RunsQuery(_Part):
    """Which runs to list. `id` is the beginning of a run id, with or without its `run-`."""

    states: frozenset[RunState] = frozenset()
    page_size: Annotated[int, Field(ge=1, le=RUNS_PER_PAGE_MAX)] = 50
    page_token: Annotated[str, Field(max_length=512)] = ""
    id: Annotated[str, Field(max_length=28)] = ""

    @property
    def id_start(self) -> str:
        """The beginning of the ids wanted; empty for any. Raises `InvalidRequest`."""
        text = self.id.strip().lower()
        start = text if not text or text.startswith("run-") else f"run-{text}"
        if start and not is_run_id_start(start):
            raise invalid("id", f"{self.id!r:.80} begins no run id; one looks like run- and 24 hex digits")
        return start


class RecordsQuery(_Part):
    """Which records to read: above number `after`, of one trajectory where it is named."""

    after: Annotated[int, Field(ge=0)] = 0
    limit: Annotated[int, Field(ge=1, le=RECORDS_PER_PAGE_MAX)] = 100
    trajectory: str = ""

    @property
    def lane(self) -> TrajectoryId:
        """The trajectory wanted; empty for all. Raises `InvalidRequest`."""
        if self.trajectory not in _TRAJECTORIES:
            names = ", ".join(sorted(_TRAJECTORIES - {""}))
            raise invalid("trajectory", f"{self.trajectory!r:.80} must be one of {names}")
        return TrajectoryId(self.trajectory)


class BriefsQuery(_Part):
    """Which records to read in brief: above number `after`."""

    after: Annotated[int, Field(ge=0)] = 0
    limit: Annotated[int, Field(ge=1, le=BRIEFS_PER_PAGE_MAX)] = BRIEFS_PER_PAGE_MAX


class EventsQuery(_Part):
    """From where on to follow: above number `after`, with fresh text between records or without."""

    after: Annotated[int, Field(ge=0)] = 0
    deltas: bool = True


def create_request(
    body: AskBody, tenant: str, policies: PolicyDefaults, *, traceparent: str = ""
) -> CreateRequest:
    """A detached run to create, its policy complete. Raises one `InvalidRequest` with every violation."""
    messages = body.conversation()
    violations = [*check_request_id(body.request_id), *check_conversation(messages)]
    files = tuple(File(file.name, file.content) for file in body.files)
    try:
        policy = policies.resolve(body.policy)
    except InvalidRequest as error:
        violations += (*error.violations, *check_files(files, None, policies))
        raise InvalidRequest(tuple(violations)) from error
    violations += check_files(files, policy, policies)
    if violations:
        raise InvalidRequest(tuple(violations))
    return CreateRequest(
        tenant=tenant,
        request_id=body.request_id,
        messages=messages,
        policy=policy,
        attached=False,
        traceparent=traceparent,
        fingerprint=fingerprint(messages, body.policy, files=files),
        files=files,
    )


def run_id(request: web.Request) -> RunId:
    """The run that the path names; nothing else reaches a store key."""
    text = request.match_info["run"]
    if not is_run_id(text):
        raise invalid("run", f"{text!r:.80} is no run id; one looks like run- and 24 hex digits")
    return RunId(text)


def digest(request: web.Request) -> str:
    """The digest of a file that the path names."""
    text = request.match_info["digest"]
    if not is_digest(text):
        raise invalid("digest", f"{text!r:.80} is no SHA-256 in hex, as `files` in runs and records have it")
    return text


def query(request: web.Request, of: type[Model]) -> Model:
    """The query string as a model; a field that may repeat is a list. Raises `InvalidRequest`."""
    given: dict[str, Any] = {}
    for name in dict.fromkeys(request.query):
        values = request.query.getall(name)
        many = name in of.model_fields and "frozenset" in str(of.model_fields[name].annotation)
        given[name] = values if many else values[-1]
    return _validated(lambda: of.model_validate(given))


async def body(request: web.Request, of: type[Model]) -> Model:
    """The JSON body as a model. Raises `InvalidRequest`."""
    try:
        raw = await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        raise invalid(
            "", f"the body is larger than {BODY_BYTES_MAX} bytes; send fewer messages, or smaller files"
        ) from error
    read = _validated(lambda: of.model_validate_json(raw or b"{}"))
    if isinstance(read, AskBody):
        _refuse_unknown_policy_fields(raw)
    return read


def _refuse_unknown_policy_fields(raw: bytes) -> None:
    """A cap under a misspelt name would be no cap, so a name that nobody knows is refused."""
    known = {field.name for field in fields(PolicyDraft)}
    given = _Policies.model_validate_json(raw).policy
    unknown = [name for name in given if name not in known]
    if unknown:
        names = ", ".join(sorted(known))
        raise InvalidRequest(
            tuple(FieldViolation(f"policy.{name:.80}", f"is not a field; known: {names}") for name in unknown)
        )


class _Policies(BaseModel):
    policy: Mapping[str, Any] = {}


def _validated(attempt: Callable[[], Model]) -> Model:
    try:
        return attempt()
    except ValidationError as error:
        raise InvalidRequest(
            tuple(
                FieldViolation(".".join(str(part) for part in found["loc"]), _problem(found))
                for found in error.errors(include_url=False)
            )
        ) from error


def _problem(found: Any) -> str:
    message = str(found["msg"])
    if found["type"] == "json_invalid":
        return f"the body is not JSON: {message}"
    return f"is {found['input']!r:.80}; {message[:1].lower()}{message[1:]}"


def invalid(field: str, problem: str) -> InvalidRequest:
    """The error about one field."""
    return InvalidRequest((FieldViolation(field, problem),))
