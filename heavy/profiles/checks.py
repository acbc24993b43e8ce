"""What no field of a profile says alone: fields that contradict each other, and files that are not there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Final

from heavy.profiles.faults import FieldPath
from heavy.profiles.schema import Profile

HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
"""`owner/name` on a model hub."""
VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
"""The name of an environment variable."""
OWNED_FLAGS: Final[Mapping[str, tuple[str, ...]]] = {
    "serve.model_path": ("--model-path", "--model"),
    "model": ("--served-model-name",),
    "context_tokens": ("--context-length",),
    "serve.gpus": ("--tp", "--tp-size", "--tensor-parallel-size", "--device"),
    "serve.nodes": ("--nnodes", "--node-rank", "--dist-init-addr", "--nccl-init-addr"),
    "Heavy": ("--host", "--port"),
    "tool_call_dialect": ("--tool-call-parser", "--reasoning-parser"),
}
"""Flags of engines that follow from something else, under every name that SGLang has for them."""

Fault = tuple[FieldPath, str]


def faults_of(profile: Profile) -> Iterator[Fault]:
    """Every field that is wrong beside the others, with what is wrong and how to mend it."""
    yield from _about_remote(profile)
    yield from _about_model(profile)
    yield from _about_args(profile)
    yield from _about_numbers(profile)
    yield from _about_prompts(profile)


def owner_of(flag: str, free: Iterable[str] = ()) -> str:
    """What sets a flag already, a field or Heavy; empty when nothing does. `free`: fields that leave theirs.

    An engine's parser takes abbreviations, so the beginning of a flag counts as the flag.
    """
    for owner, flags in OWNED_FLAGS.items():
        if owner not in free and any(known == flag or known.startswith(f"{flag}-") for known in flags):
            return owner
    return ""


def flags_in(args: Iterable[str]) -> list[str]:
    """The flags among arguments: `--flag value` and `--flag=value`."""
    return sorted({word.split("=", 1)[0] for word in args if word.startswith("--")})


def _about_remote(profile: Profile) -> Iterator[Fault]:
    remote = profile.remote
    if profile.engine == "remote" and remote is None:
        yield ("engine",), 'is "remote"; add a [remote] section with base_url'
    if profile.engine != "remote" and remote is not None:
        yield ("remote",), f'is only for engine = "remote", and this is "{profile.engine}"; remove it'
    if remote and not re.match(r"^https?://[^/\s]+", remote.base_url):
        yield ("remote", "base_url"), "must be a URL such as http://127.0.0.1:30000/v1"
    if remote and remote.api_key_env and not VARIABLE.fullmatch(remote.api_key_env):
        # It may be the key itself: it is not repeated.
        yield (
            ("remote", "api_key_env"),
            "must be the name of an environment variable that holds the key, such as OPENAI_API_KEY; a key"
            " itself does not belong into a file",
        )


def _about_model(profile: Profile) -> Iterator[Fault]:
    path, field = profile.serve.model_path, ("serve", "model_path")
    on_disk = path.startswith((".", "/", "~"))
    if profile.engine in ("sglang", "openvino") and not path:
        yield field, f'is missing; engine = "{profile.engine}" loads a model from it'
    elif profile.engine == "openvino" and not on_disk:
        yield field, f"is {path!r:.80}; it must be a directory: begin it with / or ./"
    elif profile.engine == "sglang" and not on_disk and not HUB_ID.fullmatch(path):
        yield (
            field,
            f"is {path!r:.80}, neither a directory (begin it with / or ./) nor the owner/name of a model hub",
        )


def _about_args(profile: Profile) -> Iterator[Fault]:
    args, field = profile.serve.args, ("serve", "args")
    if args and not args[0].startswith("--"):
        yield field, f"begins with {args[0]!r:.80}; it must begin with a flag"
    if any("\0" in word for word in args):
        yield field, "has a NUL in it; remove it"
    free = {"serve.gpus", "tool_call_dialect"} if profile.engine != "sglang" else set[str]()
    if profile.tool_call_dialect != "kimi_k2":
        free.add("tool_call_dialect")
    for flag in flags_in(args):
        if owner := owner_of(flag, free):
            yield field, f"has {flag}, which {owner} sets already; remove it"
    for name, value in profile.serve.env.items():
        if not VARIABLE.fullmatch(name) or "\0" in value:
            yield ("serve", "env", name), "is no name of a variable, or its value holds a NUL; correct it"


def _about_numbers(profile: Profile) -> Iterator[Fault]:
    serve = profile.serve
    if serve.gpus % serve.nodes:
        yield (
            ("serve", "gpus"),
            f"is {serve.gpus}, which does not spread evenly over serve.nodes = {serve.nodes}; correct one",
        )
    if serve.nodes > 1 and profile.engine in ("openvino", "remote"):
        yield ("serve", "nodes"), f'must be 1: engine = "{profile.engine}" runs on one node'
    if serve.nodes > 1 and profile.engine == "sglang" and not serve.gpus:
        yield ("serve", "nodes"), "must be 1 without GPUs; set serve.gpus, those of all nodes together"
    if serve.gpus and "GPU" in serve.resources:
        yield ("serve", "resources"), "has GPU, which serve.gpus sets already; remove it"
    if serve.replicas_max and serve.replicas_max < serve.replicas:
        yield (
            ("serve", "replicas_max"),
            f"is {serve.replicas_max}, less than serve.replicas = {serve.replicas}; raise it or leave it out",
        )
    if serve.scale.kv_low >= serve.scale.kv_high:
        yield (
            ("serve", "scale", "kv_low"),
            f"is {serve.scale.kv_low:g}, not less than kv_high = {serve.scale.kv_high:g}: replicas would come"
            " and go; lower it",
        )
    routing = profile.routing
    if 0 < routing.kv_tokens_max < routing.output_tokens_reserved:
        yield (
            ("routing", "kv_tokens_max"),
            f"is {routing.kv_tokens_max}, less than output_tokens_reserved ="
            f" {routing.output_tokens_reserved}: a replica would serve one generation at a time; raise it, or"
            " lower the other",
        )
    reserved = profile.limits.answer_tokens_reserved
    if reserved >= profile.context_tokens:
        yield (
            ("limits", "answer_tokens_reserved"),
            f"is {reserved}, and context_tokens is {profile.context_tokens}: no room is left; lower it",
        )


def _about_prompts(profile: Profile) -> Iterator[Fault]:
    for field in type(profile.prompts).model_fields:
        name = getattr(profile.prompts, field)
        if name and not _template_exists(profile, name):
            where = "beside the profile" if name.startswith("./") else "among the built-in templates"
            yield ("prompts", field), f"names {name!r}, which is not there {where}"


def _template_exists(profile: Profile, name: str) -> bool:
    if not name.startswith("./"):
        return "/" not in name and resources.files("heavy.prompts").joinpath(name).is_file()
    directory = Path(profile.directory).resolve()
    file = (directory / name).resolve()
    return file.is_relative_to(directory) and file.is_file()
