"""Profiles read from TOML: built-in ones from the wheel, then directories of one's own."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from heavy.core.errors import ConfigError, NotFound
from heavy.profiles.schema import Profile

PROFILES_MAX: Final = 1_000
FILE_BYTES_MAX: Final = 1 << 20

_HEADER: Final = re.compile(r"^\s*\[\s*([^\[\]]+?)\s*\]\s*(?:#.*)?$")
_KEY: Final = re.compile(r"^\s*([A-Za-z0-9_.\"'-]+(?:\s*\.\s*[A-Za-z0-9_\"'-]+)*)\s*=")


class ProfileBook:
    """The profiles by name. Iterates over the names, sorted."""

    def __init__(self, profiles: Iterable[Profile]) -> None:
        self._by_name = {profile.name: profile for profile in sorted(profiles, key=lambda p: p.name)}

    @property
    def by_name(self) -> Mapping[str, Profile]:
        """All of them, read-only."""
        return MappingProxyType(self._by_name)

    def get(self, name: str) -> Profile:
        """The profile. Raises `NotFound`, with the name that was probably meant."""
        if name not in self._by_name:
            meant = _meant(name, self._by_name) or f" Known: {', '.join(self._by_name) or 'none'}."
            raise NotFound(f"There is no profile {name!r:.80}.{meant}")
        return self._by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)


def load_profiles(directories: Iterable[str | Path] = ()) -> ProfileBook:
    """Built-in profiles and every `*.toml` in `directories`.

    A profile of one's own replaces the built-in one of its name; two of one's own with one name are an
    error. Raises `ConfigError` naming file, line, field, what is wrong and how to mend it.
    """
    with resources.as_file(resources.files("heavy.profiles")) as built_in:
        found = {profile.name: profile for profile in map(read_profile, sorted(built_in.glob("*.toml")))}
    own: dict[str, Path] = {}
    for file in _files(directories):
        profile = read_profile(file)
        if profile.name in own:
            raise ConfigError(
                f"{file}: name: {profile.name!r} is also the name of {own[profile.name]}; rename one of them."
            )
        own[profile.name] = file
        found[profile.name] = profile
    return ProfileBook(found.values())


def _files(directories: Iterable[str | Path]) -> Iterator[Path]:
    count = 0
    for directory in dict.fromkeys(Path(one).expanduser().resolve() for one in directories):
        if not directory.is_dir():
            raise ConfigError(f"HEAVY_PROFILE_DIRS names {directory}, which is no directory.")
        for file in sorted(directory.glob("*.toml")):
            count += 1
            if count > PROFILES_MAX:
                raise ConfigError(f"HEAVY_PROFILE_DIRS holds more than {PROFILES_MAX} profiles.")
            yield file


def read_profile(file: Path) -> Profile:
    """One profile from its file. Raises `ConfigError`."""
    text = _text(file)
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file}: this is not TOML: {error}.") from error
    if "directory" in values:
        raise _Fault(file, text).error(("directory",), "is set by the loader; remove it")
    try:
        profile = Profile.model_validate({**values, "directory": str(file.parent)})
    except ValidationError as error:
        raise ConfigError("\n".join(_faults(file, text, values, error))) from error
    _check(profile, _Fault(file, text))
    return profile


def _text(file: Path) -> str:
    try:
        if file.stat().st_size > FILE_BYTES_MAX:
            raise ConfigError(f"{file}: has more than {FILE_BYTES_MAX} bytes; that is no profile.")
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read: {error}.") from error


@dataclass(frozen=True, slots=True)
class _Fault:
    """Says what is wrong where."""

    file: Path
    text: str

    def said(self, path: tuple[int | str, ...], problem: str) -> str:
        field = ".".join(str(part) for part in path)
        return f"{self.file}:{line_of(self.text, path)}: {field}: {problem}."

    def error(self, path: tuple[int | str, ...], problem: str) -> ConfigError:
        return ConfigError(self.said(path, problem))


def _faults(file: Path, text: str, values: dict[str, Any], error: ValidationError) -> Iterator[str]:
    fault = _Fault(file, text)
    for found in error.errors(include_url=False):
        path = found["loc"]
        if found["type"] == "extra_forbidden":
            known = _fields_at(path[:-1])
            mend = _meant(str(path[-1]), known) or f" Known here: {', '.join(sorted(known))}."
            yield fault.said(path, f"is not a field of a profile.{mend} Correct or remove it")
        elif found["type"] == "missing":
            yield fault.said(path, f"is missing; {_DOC.get('.'.join(map(str, path)), 'add it')}")
        else:
            yield fault.said(path, f"is {found['input']!r:.80}; {found['msg'][:1].lower()}{found['msg'][1:]}")


_DOC: Final = {
    "name": 'add name = "..." (lower case, digits, dots, dashes)',
    "title": 'add title = "...", what people are shown',
    "engine": 'add engine = "sglang", "openvino", "remote" or "simulated"',
    "model": 'add model = "...", the name under which the server serves it',
    "context_tokens": "add context_tokens = the longest prompt plus completion, in tokens",
    "remote.base_url": 'add base_url = "http://HOST:PORT/v1"',
}


def _fields_at(path: tuple[int | str, ...]) -> set[str]:
    """The names that a table of a profile may hold."""
    model: type[BaseModel] = Profile
    for part in path:
        annotation = model.model_fields[str(part)].annotation
        options = getattr(annotation, "__args__", (annotation,))
        model = next(one for one in options if isinstance(one, type) and issubclass(one, BaseModel))
    return set(model.model_fields) - {"directory"}


def _meant(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, tuple(known), n=1, cutoff=0.6)
    return f" Did you mean {close[0]!r}?" if close else ""


def _check(profile: Profile, fault: _Fault) -> None:
    """What one field alone cannot say."""
    if profile.engine == "remote" and profile.remote is None:
        raise fault.error(("engine",), 'is "remote"; add a [remote] section with base_url')
    if profile.engine != "remote" and profile.remote is not None:
        raise fault.error(
            ("remote",), f'is only for engine = "remote", and this is "{profile.engine}"; remove it'
        )
    if profile.remote and not re.match(r"^https?://[^/\s]+", profile.remote.base_url):
        raise fault.error(("remote", "base_url"), "must be a URL such as http://127.0.0.1:30000/v1")
    if profile.engine in ("sglang", "openvino") and not profile.serve.model_path:
        raise fault.error(
            ("serve", "model_path"), f'is missing; engine = "{profile.engine}" loads a model from it'
        )
    for field in type(profile.prompts).model_fields:
        name = getattr(profile.prompts, field)
        if name and not _template_exists(profile, name):
            where = "beside the profile" if name.startswith("./") else "among the built-in templates"
            raise fault.error(("prompts", field), f"names {name!r}, which is not there {where}")


def _template_exists(profile: Profile, name: str) -> bool:
    if not name.startswith("./"):
        return "/" not in name and resources.files("heavy.prompts").joinpath(name).is_file()
    directory = Path(profile.directory).resolve()
    file = (directory / name).resolve()
    return file.is_relative_to(directory) and file.is_file()


def line_of(text: str, path: tuple[int | str, ...]) -> int:
    """The line, from 1, of the deepest part of `path` that the TOML text writes out; 1 when none is."""
    wanted = tuple(str(part) for part in path if isinstance(part, str))
    table: tuple[str, ...] = ()
    best, best_depth = 1, 0
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            table = _parts(header[1])
            here = table
        elif key := _KEY.match(line):
            here = table + _parts(key[1])
        else:
            continue
        depth = len(here)
        if best_depth < depth <= len(wanted) and here == wanted[:depth]:
            best, best_depth = number, depth
    return best


def _parts(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in dotted.split("."))
