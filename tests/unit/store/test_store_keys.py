from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heavy.core.errors import NotFound
from heavy.core.ids import RunId, new_run_id
from heavy.store.keys import RunKeys, index_member, request_key, run_of_member


def test_all_keys_of_a_run_fall_into_one_cluster_slot() -> None:
    run = new_run_id()
    tags = {re.findall(r"\{(.*?)\}", key)[0] for key in RunKeys(run).all}
    assert tags == {run}
    assert len(set(RunKeys(run).all)) == 12


@given(st.text(max_size=40))
def test_what_is_no_run_id_reaches_no_key(text: str) -> None:
    with pytest.raises(NotFound):
        RunKeys(RunId(text))


@given(st.text(max_size=8), st.text(max_size=8), st.text(max_size=8), st.text(max_size=8))
def test_requests_of_two_tenants_never_meet(tenant: str, request_id: str, other: str, its: str) -> None:
    same = (tenant, request_id) == (other, its)
    assert (request_key(tenant, request_id) == request_key(other, its)) == same


@given(st.lists(st.integers(0, 10**14), min_size=2, max_size=8))
def test_text_order_of_index_members_is_order_by_creation(times_ms: list[int]) -> None:
    runs = [(created_ms, new_run_id()) for created_ms in times_ms]
    assert [index_member(*run) for run in sorted(runs)] == sorted(index_member(*run) for run in runs)
    assert [run_of_member(index_member(*run)) for run in runs] == [run for _, run in runs]
