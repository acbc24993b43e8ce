"""Which values are secret, from everything the operator configured."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from urllib.parse import unquote, urlsplit

from heavy.config import Settings
from heavy.core.redaction import Redactor
from heavy.profiles.loader import load_profiles
from heavy.profiles.schema import Profile
from heavy.tools.config import ToolsConfig, read_tools


def redactor_of(settings: Settings) -> Redactor:
    """What takes this process's secrets out of text. Raises `ConfigError` for files that cannot be read."""
    config = read_tools(settings.tools_file)
    profiles = load_profiles(settings.profile_directories)
    secrets = [*_of_settings(settings), *_of_environment(config, profiles.by_name)]
    return Redactor(secrets, patterns=config.redact.patterns)


def _of_settings(settings: Settings) -> Iterator[str]:
    yield settings.cache_secret.get_secret_value()
    for url in (settings.store_url, settings.cache_url):
        try:
            yield unquote(urlsplit(url).password or "")
        except ValueError:  # no URL: connecting to it says so
            continue


def _of_environment(config: ToolsConfig, profiles: Mapping[str, Profile]) -> Iterator[str]:
    """The values of all variables that are named as holders of a key."""
    names = set(config.environment_names())
    names |= {profile.remote.api_key_env for profile in profiles.values() if profile.remote is not None}
    for name in sorted(filter(None, names)):
        value = os.environ.get(name, "")
        yield value
        scheme, _, token = value.partition(" ")
        if token and scheme.lower() in ("bearer", "basic", "token"):
            yield token
