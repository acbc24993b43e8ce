"""Templates and how they are filled in: sandboxed, strict about variables, fenced against what they quote.

What templates may use beside their variables: `fence(texts...)`, a line that occurs in none of the texts,
and the filter `quoted`, which makes the control tokens of chat templates in a text inert.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, Final, Literal

from jinja2 import StrictUndefined, TemplateError, TemplateNotFound, TemplateSyntaxError
from jinja2.loaders import FunctionLoader
from jinja2.sandbox import ImmutableSandboxedEnvironment

from heavy.core.errors import ConfigError
from heavy.profiles.schema import Profile

Which = Literal[
    "system",
    "aggregate",
    "force_answer",
    "repeat_reminder",
    "broken_call",
    "context_dropped",
    "summarise",
    "files",
]

TEMPLATE_BYTES_MAX: Final = 1 << 20
_BUILT_IN: Final = re.compile(r"^[a-z0-9_]+\.jinja$")
_CONTROL_TOKEN: Final = re.compile(r"<\|(\w+)\|>")
FENCE_BYTES: Final = 4
_FENCE_TRIES: Final = 1_000


def render(profile: Profile, which: Which, **values: Any) -> str:
    """The profile's prompt of that kind, filled in; empty where the profile names no template.

    Raises `ConfigError` naming the template, and its line where there is one, for a template that is not
    there, does not parse, misses a variable or does what the sandbox forbids.
    """
    name: str = getattr(profile.prompts, which)
    if not name:
        return ""
    return render_template(profile.directory, name, f"Profile {profile.name}: prompts.{which}", values)


def render_template(directory: str, name: str, told_as: str, values: Mapping[str, Any]) -> str:
    """A built-in template by its name, or one in `directory` by a name that begins with "./", filled in.

    Raises `ConfigError` as `render` does; `told_as` begins its message.
    """
    try:
        return _environment(directory).get_template(name).render(values)
    except TemplateNotFound as error:
        raise _fault(told_as, name, "cannot be found or read") from error
    except TemplateSyntaxError as error:
        raise _fault(told_as, name, f"line {error.lineno}: {error.message}") from error
    except TemplateError as error:
        raise _fault(told_as, name, error.message or type(error).__name__) from error
    except (ArithmeticError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise _fault(told_as, name, f"{type(error).__name__}: {error}") from error


def _fault(told_as: str, name: str, problem: str) -> ConfigError:
    return ConfigError(f"{told_as}: template {name!r}: {problem.rstrip('.')}.")


@lru_cache(maxsize=256)
def _environment(directory: str) -> ImmutableSandboxedEnvironment:
    """The templates that a profile in `directory` can use."""

    def load(name: str) -> tuple[str, str | None, None] | None:
        text = _built_in(name) if not name.startswith("./") else _beside(directory, name)
        return None if text is None else (text, None, None)

    # Prompts are plain text for a model; nothing here is HTML, so escaping would only corrupt them.
    environment = ImmutableSandboxedEnvironment(
        loader=FunctionLoader(load),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["fence"] = fence
    environment.filters["quoted"] = quoted
    return environment


def _built_in(name: str) -> str | None:
    file = resources.files("heavy.prompts").joinpath(name)
    return file.read_text(encoding="utf-8") if _BUILT_IN.match(name) and file.is_file() else None


def _beside(directory: str, name: str) -> str | None:
    """A file in the profile's directory or below it, never outside, symbolic links included."""
    if not directory:
        return None
    root = Path(directory).resolve()
    try:
        file = (root / name).resolve()
        if not file.is_relative_to(root) or not file.is_file() or file.stat().st_size > TEMPLATE_BYTES_MAX:
            return None
        return file.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None


def fence(*texts: str | Iterable[str]) -> str:
    """A marker that occurs in none of the texts, the same for the same texts.

    Its digits depend on all the texts, so no text can foresee it; that none holds it is checked besides.
    """
    parts = [part for text in texts for part in ([text] if isinstance(text, str) else text)]
    digest = hashlib.blake2b("\x00".join(parts).encode("utf-8", "replace"), digest_size=FENCE_BYTES)
    for _ in range(_FENCE_TRIES):
        marker = digest.hexdigest()
        if not any(marker in part for part in parts):
            return marker
        digest.update(b"again")
    raise ValueError("no marker was found that the texts do not hold")


def quoted(text: str) -> str:
    """The text with chat-template control tokens (`<|im_end|>`) broken by spaces; all else unchanged.

    Servers turn such tokens into control wherever they stand: quoted text could end its own message.
    """
    return _CONTROL_TOKEN.sub(r"<| \1 |>", text)
