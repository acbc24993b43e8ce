"""From what a caller gives to a complete policy: defaults filled in, every violation named at once."""

from __future__ import annotations

import hashlib
import math
import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

from heavy.config import Settings
from heavy.core import codec
from heavy.core.draft import PolicyDraft
from heavy.core.errors import ConfigError, FieldViolation, InvalidRequest
from heavy.core.files import File, ref_of
from heavy.core.ids import ARMS_MAX, is_run_id
from heavy.core.messages import Message
from heavy.core.policy import KEEP_LAST_MAX, AggregationMode, Budget, Members, Policy, Sampling
from heavy.core.tools import ToolSpec
from heavy.profiles.schema import Profile

WIDTH: Final = 8
QUORUM_SHARE: Final = 0.75
STRAGGLER_GRACE_S: Final = 30.0
DEADLINE_S: Final = 600.0
VOTE_THRESHOLD: Final = 0.75

STEPS_PER_TRAJECTORY_MAX: Final = 1_000
STEPS_PER_RUN_MAX: Final = 4_000
"""Width times steps: eight arms of 300 steps fit, a run that could never be read does not."""
COUNT_MAX: Final = 1 << 53
"""Above any real count of tokens or calls; the largest whole number that JSON readers agree on."""
COST_USD_MAX: Final = 1e9
AGGREGATION_SHARE_MAX: Final = 0.9
SEED_MAX: Final = (1 << 63) - 1
NAMES_SHOWN: Final = 20
"""How many known names a violation lists before it ends in an ellipsis."""

Number = TypeVar("Number", int, float)


@dataclass(frozen=True, slots=True)
class PolicyDefaults:
    """What drafts are completed from.

    `served` names the profiles this server serves, whether or not a replica is up at this instant;
    `tool_names` the tools its runners have, `file_tools` those of them that work on a caller's files.
    """

    profiles: Mapping[str, Profile]
    served: Collection[str]
    settings: Settings
    tool_names: Collection[str]
    file_tools: Collection[str] = ()

    def resolve(self, draft: PolicyDraft) -> Policy:
        """The complete policy. Raises `InvalidRequest`, `ConfigError`; see `resolve`."""
        return resolve(
            draft,
            profiles=self.profiles,
            served=self.served,
            settings=self.settings,
            tool_names=self.tool_names,
        )


def resolve(
    draft: PolicyDraft,
    *,
    profiles: Mapping[str, Profile],
    served: Collection[str],
    settings: Settings,
    tool_names: Collection[str],
) -> Policy:
    """Fill in what the draft leaves open and check the whole.

    Raises one `InvalidRequest` that names every field that cannot be accepted, by its path in the API,
    and says what would be valid; `ConfigError` when the server's own default profile does not exist.
    """
    check = _Check()
    width = _width(draft, check)
    members = _members(draft, width, profiles, served, settings, check)
    leading = profiles.get(members.arms[0])
    draft = _with_preset(draft, leading or _ANY_PROFILE, check)
    policy = Policy(
        width=width,
        members=members,
        quorum=_quorum(draft, width, check),
        straggler_grace_s=check.number(
            "policy.straggler_grace",
            draft.straggler_grace_s,
            STRAGGLER_GRACE_S,
            0.0,
            settings.deadline_max_s,
            "s",
        ),
        deadline_s=_deadline_s(draft, settings, check),
        budget=_budget(draft, width, check),
        aggregation=draft.aggregation or AggregationMode.AUTO,
        vote_threshold=_vote_threshold(draft, check),
        early_stop=True if draft.early_stop is None else draft.early_stop,
        tools=_tools(draft, members, profiles, tool_names, check),
        context_policy=draft.context_policy,
        context_keep_last=check.cap("policy.context_keep_last", draft.context_keep_last, 1, KEEP_LAST_MAX),
        sampling=_sampling(draft, leading or _ANY_PROFILE, check),
        seed=check.number("policy.sampling.seed", draft.seed, secrets.randbits(31), 0, SEED_MAX),
        arms_from=draft.arms_from,
        preset=draft.preset,
    )
    check.done()
    return policy


def fingerprint(
    messages: Sequence[Message],
    draft: PolicyDraft,
    tools: Sequence[ToolSpec] = (),
    files: Sequence[File] = (),
) -> str:
    """A digest of a request as it was given: equal for equal requests, whatever their defaults become."""
    digest = hashlib.sha256(codec.dump(draft))
    for part in (*messages, *tools, *map(ref_of, files)):
        digest.update(codec.dump(part))
    return digest.hexdigest()


def _width(draft: PolicyDraft, check: _Check) -> int:
    """The width; where arms are taken from an earlier run, how many those are."""
    taken = draft.arms_from
    if taken is None:
        return check.number("policy.width", draft.width, WIDTH, 1, ARMS_MAX)
    arms = taken.arms
    if not is_run_id(taken.run):
        check.fail("policy.arms_from.run_id", f"is {taken.run!r:.80}, which is no run id")
    if not arms or len(set(arms)) < len(arms) or not all(0 <= index < ARMS_MAX for index in arms):
        check.fail(
            "policy.arms_from.arms",
            f"is {list(arms)!r:.80}; it must name at least one arm from 0 to {ARMS_MAX - 1}, each once",
        )
        return 1
    if draft.width not in (None, len(arms)):
        check.fail(
            "policy.width", f"is {draft.width}; with {len(arms)} arms taken over it must be {len(arms)}"
        )
    return len(arms)


_ANY_PROFILE: Final = Profile(name="any", title="", engine="simulated", model="", context_tokens=256)
"""Stands in for an unknown profile while the other fields are checked."""


@dataclass(slots=True)
class _Check:
    """Collects violations, so that the caller hears of all of them at once."""

    violations: list[FieldViolation] = field(default_factory=list)

    def fail(self, path: str, problem: str) -> None:
        self.violations.append(FieldViolation(path, problem))

    def number(
        self, path: str, given: Number | None, default: Number, low: Number, high: Number, unit: str = ""
    ) -> Number:
        """`given` where it is a number from `low` to `high`, else the default and a violation.

        Where `low` is a whole number, only whole numbers will do.
        """
        if given is None:
            return default
        if type(low) is int and type(given) is not int:
            self.fail(path, f"is {given}; it must be a whole number from {low} to {high}")
            return default
        if low <= given <= high:  # not a number is never in between
            return given
        suffix = f" {unit}" if unit else ""
        self.fail(path, f"is {given}; it must be from {low} to {high}{suffix}")
        return default

    def cap(self, path: str, given: Number | None, low: Number, high: Number) -> Number | None:
        """Like `number` for what has no default: None stays None, no cap."""
        return None if given is None else self.number(path, given, low, low, high)

    def done(self) -> None:
        if self.violations:
            raise InvalidRequest(tuple(self.violations))


def _members(
    draft: PolicyDraft,
    width: int,
    profiles: Mapping[str, Profile],
    served: Collection[str],
    settings: Settings,
    check: _Check,
) -> Members:
    for position, name in enumerate(draft.arms):
        _check_profile(f"policy.members.arms[{position}]", name, profiles, served, check)
    if draft.aggregator:
        _check_profile("policy.members.aggregator", draft.aggregator, profiles, served, check)
    if len(draft.arms) in (1, width):
        arms = draft.arms * (width // len(draft.arms))
    else:
        if draft.arms:
            check.fail(
                "policy.members.arms",
                f"has {len(draft.arms)} names; it must have one for all arms, or exactly {width} (the width)",
            )
        arms = (_default_profile(draft, profiles, served, settings, check),) * width
    return Members(arms=arms, aggregator=draft.aggregator or arms[0])


def _check_profile(
    path: str, name: str, profiles: Mapping[str, Profile], served: Collection[str], check: _Check
) -> None:
    if name not in profiles:
        check.fail(path, f"{name!r:.80} is not a profile; known: {_names(profiles)}")
    elif name not in served:
        check.fail(path, f"profile {name!r} is known, but this server does not serve it; {_served(served)}")


def _default_profile(
    draft: PolicyDraft,
    profiles: Mapping[str, Profile],
    served: Collection[str],
    settings: Settings,
    check: _Check,
) -> str:
    if settings.profile:
        if settings.profile not in profiles:
            raise ConfigError(
                f"HEAVY_PROFILE names {settings.profile!r}, which is not a profile; known: {_names(profiles)}"
            )
        return settings.profile
    if len(served) == 1:
        return next(iter(served))
    if not draft.arms:
        check.fail(
            "policy.members.arms", f"is empty and the server has no default profile; {_served(served)}"
        )
    return ""


def _with_preset(draft: PolicyDraft, profile: Profile, check: _Check) -> PolicyDraft:
    """The draft with what the preset it names sets and the caller did not."""
    if not draft.preset:
        return draft
    preset = profile.presets.get(draft.preset)
    if preset is None:
        known = _names(profile.presets) if profile.presets else "none"
        check.fail("policy.preset", f"{draft.preset!r:.80} is not a preset of {profile.name}; known: {known}")
        return replace(draft, preset="")
    sets: dict[str, Any] = {
        "steps_per_trajectory_max": preset.steps_max,
        "reasoning_tokens_per_step_max": preset.output_tokens_per_step_max,
        "temperature": preset.temperature,
        "top_p": preset.top_p,
        "context_policy": preset.context_policy,
        "context_keep_last": preset.context_keep_last,
    }
    return replace(draft, **{name: value for name, value in sets.items() if getattr(draft, name) is None})


def _quorum(draft: PolicyDraft, width: int, check: _Check) -> int:
    default = max(1, math.ceil(width * QUORUM_SHARE))
    quorum = check.number("policy.quorum", draft.quorum, default, 1, ARMS_MAX)
    if draft.quorum is not None and quorum > width:
        check.fail("policy.quorum", f"is {quorum}; it must be from 1 to the width, which is {width}")
    return quorum


def _deadline_s(draft: PolicyDraft, settings: Settings, check: _Check) -> float:
    most = settings.deadline_max_s
    default = min(DEADLINE_S, most)
    if draft.deadline_s is not None and not 0 < draft.deadline_s <= most:
        check.fail("policy.deadline", f"is {draft.deadline_s} s; it must be above 0 and at most {most:g} s")
        return default
    return default if draft.deadline_s is None else draft.deadline_s


def _vote_threshold(draft: PolicyDraft, check: _Check) -> float:
    given = draft.vote_threshold
    if given is not None and not 0.5 < given <= 1:
        check.fail("policy.vote_threshold", f"is {given}; it must be above 0.5 and at most 1")
        return VOTE_THRESHOLD
    return VOTE_THRESHOLD if given is None else given


def _budget(draft: PolicyDraft, width: int, check: _Check) -> Budget:
    path, default = "policy.budget.", Budget()
    steps = check.number(
        path + "steps_per_trajectory_max",
        draft.steps_per_trajectory_max,
        default.steps_per_trajectory_max,
        1,
        STEPS_PER_TRAJECTORY_MAX,
    )
    if width * steps > STEPS_PER_RUN_MAX:
        check.fail(
            path + "steps_per_trajectory_max",
            f"is {steps}, which over {width} arms makes {width * steps} steps; "
            f"a run may have {STEPS_PER_RUN_MAX}, so at most {STEPS_PER_RUN_MAX // width} an arm",
        )
    return Budget(
        tokens_max=check.cap(path + "tokens_max", draft.tokens_max, 1, COUNT_MAX),
        cost_usd_max=_cost_usd_max(draft, check),
        tool_calls_max=check.cap(path + "tool_calls_max", draft.tool_calls_max, 0, COUNT_MAX),
        steps_per_trajectory_max=steps,
        reasoning_tokens_per_step_max=check.number(
            path + "reasoning_tokens_per_step_max",
            draft.reasoning_tokens_per_step_max,
            default.reasoning_tokens_per_step_max,
            1,
            COUNT_MAX,
        ),
        aggregation_share=check.number(
            path + "aggregation_share",
            draft.aggregation_share,
            default.aggregation_share,
            0.0,
            AGGREGATION_SHARE_MAX,
        ),
    )


def _cost_usd_max(draft: PolicyDraft, check: _Check) -> float | None:
    given = draft.cost_usd_max
    if given is not None and not 0 < given <= COST_USD_MAX:
        check.fail(
            "policy.budget.cost_usd_max", f"is {given}; it must be above 0 and at most {COST_USD_MAX:g}"
        )
        return None
    return given


def _tools(
    draft: PolicyDraft,
    members: Members,
    profiles: Mapping[str, Profile],
    tool_names: Collection[str],
    check: _Check,
) -> tuple[str, ...]:
    if draft.tools is None:
        preferred = (tool for arm in members.arms if arm in profiles for tool in profiles[arm].default_tools)
        return tuple(dict.fromkeys(tool for tool in preferred if tool in tool_names))
    for position, name in enumerate(draft.tools):
        if name not in tool_names:
            check.fail(
                f"policy.tools[{position}]", f"{name!r:.80} is not a tool here; known: {_names(tool_names)}"
            )
        elif name in draft.tools[:position]:
            check.fail(f"policy.tools[{position}]", f"names {name!r} a second time; name each tool once")
    return draft.tools


def _sampling(draft: PolicyDraft, profile: Profile, check: _Check) -> Sampling | None:
    if draft.temperature is None and draft.top_p is None:
        return None
    preset = profile.sampling.arm
    top_p = draft.top_p
    if top_p is not None and not 0 < top_p <= 1:
        check.fail("policy.sampling.top_p", f"is {top_p}; it must be above 0 and at most 1")
        top_p = None
    return Sampling(
        temperature=check.number(
            "policy.sampling.temperature", draft.temperature, preset.temperature, 0.0, 2.0
        ),
        top_p=preset.top_p if top_p is None else top_p,
    )


def _served(served: Collection[str]) -> str:
    return f"served: {_names(served)}"


def _names(names: Iterable[str]) -> str:
    ordered = sorted(names)
    shown = ", ".join(ordered[:NAMES_SHOWN]) or "none"
    return shown if len(ordered) <= NAMES_SHOWN else f"{shown}, …"
