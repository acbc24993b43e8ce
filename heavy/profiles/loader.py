"""Profiles read from TOML: built-in ones from the wheel, then directories of one's own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Final

from pydantic import ValidationError

from heavy.core.errors import ConfigError, NotFound
from heavy.profiles.checks import faults_of
from heavy.profiles.faults import SET_BY_LOADER, FieldPath, TomlFile, meant
from heavy.profiles.schema import Profile

PROFILES_MAX: Final = 1_000


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
            mend = meant(name, self._by_name) or f" Known: {', '.join(self._by_name) or 'none'}."
            raise NotFound(f"There is no profile {name!r:.80}.{mend}")
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
            raise fault_in(
                profile, ("name",), f"is {profile.name!r}, as in {own[profile.name]}; rename one of them"
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
    return _profile(TomlFile.read(file, "profile"), str(file.parent), str(file))


def parse_profile(text: str, name: str) -> Profile:
    """One profile from a text that came without a file: `name` stands for it in faults, paths are absolute.

    Raises `ConfigError`.
    """
    toml = TomlFile.parse(text, Path(name), "profile")
    profile = _profile(toml, "/")
    if profile.serve.model_path.startswith("."):
        raise toml.fault(("serve", "model_path"), "must be absolute: this profile has no directory")
    return profile


def fault_in(profile: Profile, field: FieldPath, problem: str) -> ConfigError:
    """A fault that only this machine shows, by its line; by the profile's name where it has no file here."""
    with contextlib.suppress(ConfigError):
        return TomlFile.read(Path(profile.file), "profile").fault(field, problem)
    return ConfigError(f"Profile {profile.name}: {'.'.join(map(str, field))}: {problem}.")


def _profile(toml: TomlFile, directory: str, file: str = "") -> Profile:
    for name in SET_BY_LOADER:
        if name in toml.values:
            raise toml.fault((name,), "is set by the loader; remove it")
    try:
        profile = Profile.model_validate({**toml.values, "directory": directory, "file": file})
    except ValidationError as error:
        raise toml.faults(error, Profile, _DOC) from error
    if found := [str(toml.fault(path, problem)) for path, problem in faults_of(profile)]:
        raise ConfigError("\n".join(found))
    return profile


_DOC: Final = {
    "name": 'add name = "..." (lower case, digits, dots, dashes)',
    "title": 'add title = "...", what people are shown',
    "engine": 'add engine = "sglang", "openvino", "remote" or "simulated"',
    "model": 'add model = "...", the name under which the server serves it',
    "context_tokens": "add context_tokens = the longest prompt plus completion, in tokens",
    "remote.base_url": 'add base_url = "http://HOST:PORT/v1"',
}
