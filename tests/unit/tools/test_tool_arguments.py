"""Reading arguments and making cache keys: what holds for every input."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from heavy.testing.tools import tool_spec
from heavy.tools import arguments, cache_key
from heavy.tools.cache_key import Keys
from heavy.tools.text import clip, encodable, fence

QUICK = settings(deadline=None, max_examples=25)
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=6
)
OBJECTS = st.dictionaries(st.text(), VALUES)
ANY_OBJECT = arguments.Schema("any", {"type": "object"})
SPEC = tool_spec("any", cacheable=True)


@QUICK
@given(OBJECTS, st.booleans(), st.sampled_from([None, 2]))
async def test_repair_never_changes_valid_json(
    values: dict[str, Any], ascii_only: bool, indent: int | None
) -> None:
    text = json.dumps(values, ensure_ascii=ascii_only, indent=indent)
    read = await arguments.read(text, ANY_OBJECT)
    assert read == arguments.Arguments(json.loads(text))


@QUICK
@given(st.text(alphabet="{}[]\":,\\ab1\n' ", max_size=60))
async def test_any_text_is_either_read_or_refused(text: str) -> None:
    try:
        read = await arguments.read(text, ANY_OBJECT)
    except arguments.BadArguments:
        return
    assert isinstance(read.values, dict)


@QUICK
@given(OBJECTS, st.randoms(use_true_random=False))
def test_the_order_of_members_and_the_spelling_do_not_count(values: dict[str, Any], random: Any) -> None:
    names = list(values)
    random.shuffle(names)
    respelled = json.loads(json.dumps({name: values[name] for name in names}, ensure_ascii=True, indent=3))
    assert cache_key.canonical(values) == cache_key.canonical(respelled)


@QUICK
@given(OBJECTS)
def test_canonical_arguments_mean_the_same_and_are_stable(values: dict[str, Any]) -> None:
    text = cache_key.canonical(values)
    assert json.loads(text) == values
    assert cache_key.canonical(json.loads(text)) == text


@QUICK
@given(OBJECTS, OBJECTS)
def test_different_arguments_have_different_keys(one: dict[str, Any], other: dict[str, Any]) -> None:
    texts = [cache_key.canonical(values) for values in (one, other)]
    keys = [Keys(b"secret").key("tool", "digest", "scope", "", text) for text in texts]
    assert (keys[0] == keys[1]) == (texts[0] == texts[1])


def test_numbers_are_compared_by_value_and_texts_by_code_points() -> None:
    def same(one: object, other: object) -> bool:
        return cache_key.canonical({"x": one}) == cache_key.canonical({"x": other})

    assert same(1, 1.0)
    assert same(100, 1e2)
    assert same(0, -0.0)
    assert not same(1, True)
    assert not same(1, "1")
    assert not same(2**53, float(2**53) + 2)
    assert same("\u00e9", json.loads('"\\u00e9"'))
    assert not same("\u00e9", "e\u0301")


def test_a_key_depends_on_secret_tenant_rights_history_tool_version_and_schema() -> None:
    base = (b"secret", "tenant", SPEC, "{}", "", "")
    others = [
        (b"other", "tenant", SPEC, "{}", "", ""),
        (b"secret", "other", SPEC, "{}", "", ""),
        (b"secret", "tenant", SPEC, "{}", "somebody's rights", ""),
        (b"secret", "tenant", SPEC, "{}", "", "a history"),
        (b"secret", "tenant", tool_spec("other"), "{}", "", ""),
        (b"secret", "tenant", replace(SPEC, version="2"), "{}", "", ""),
        (
            b"secret",
            "tenant",
            tool_spec("any", parameters={"type": "object", "required": ["x"]}),
            "{}",
            "",
            "",
        ),
    ]
    keys = {
        Keys(secret).key(spec.name, cache_key.tool_digest(spec), tenant, auth, arguments, history).name
        for secret, tenant, spec, arguments, auth, history in [base, *others]
    }
    assert len(keys) == 1 + len(others)


@QUICK
@given(st.text(), st.integers(min_value=0, max_value=200))
def test_clipped_text_is_never_longer_than_allowed(text: str, chars_max: int) -> None:
    clipped = clip(text, chars_max)
    assert len(clipped) <= max(chars_max, 0)
    assert clipped == text or len(text) > chars_max


@QUICK
@given(st.text(alphabet=st.characters()))
def test_every_text_can_be_encoded_after_cleaning(text: str) -> None:
    assert encodable(text).encode("utf-8").decode("utf-8") == encodable(text)


@QUICK
@given(st.text(alphabet="`a\n", max_size=40))
def test_a_fence_cannot_be_closed_from_inside(text: str) -> None:
    opening, _, rest = fence("data", text).partition("\n")
    bar = opening.removesuffix("data")
    inside, _, closing = rest.rpartition("\n")
    assert closing == bar
    assert inside == text
    assert bar not in text
