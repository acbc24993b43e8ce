"""Whether the files a caller gives can be accepted: their names and sizes, and a tool that reads them."""

from __future__ import annotations

from collections.abc import Sequence

from heavy.coordinator.defaults import PolicyDefaults
from heavy.core.errors import FieldViolation
from heavy.core.files import FILES_BYTES_MAX, FILES_MAX, File, is_file_name
from heavy.core.policy import Policy

NAME_RULE = "1 to 100 of A-Z, a-z, 0-9, '_', '-' and '.', none of the last two first"


def check_files(
    files: Sequence[File], policy: Policy | None, policies: PolicyDefaults
) -> tuple[FieldViolation, ...]:
    """Every reason why `files` cannot go with a run; `policy` is None where that itself is not acceptable."""
    violations, names = [], [file.name for file in files]
    if len(files) > FILES_MAX:
        violations.append(FieldViolation("files", f"are {len(files)}; at most {FILES_MAX} are accepted"))
    size, most = (
        sum(len(file.data) for file in files),
        min(FILES_BYTES_MAX, policies.settings.run_files_bytes_max),
    )
    if size > most:
        violations.append(FieldViolation("files", f"have {size} bytes together; at most {most} are accepted"))
    for index, name in enumerate(names[:FILES_MAX]):
        if not is_file_name(name):
            violations.append(FieldViolation(f"files[{index}].name", f"{name!r:.80} must be {NAME_RULE}"))
        elif name in names[:index]:
            violations.append(FieldViolation(f"files[{index}].name", f"{name!r} is given twice"))
    if files and policy is not None and not set(policy.tools) & set(policies.file_tools):
        violations.append(FieldViolation("files", _unread(policies)))
    return tuple(violations)


def _unread(policies: PolicyDefaults) -> str:
    if policies.file_tools:
        return f"could be read by {', '.join(sorted(policies.file_tools))}, which the run's tools are without"
    return (
        'can be read by no tool of this server; its operator has to set mode = "session" under '
        "[tools.python] in HEAVY_TOOLS_FILE"
    )
