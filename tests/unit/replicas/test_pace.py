from __future__ import annotations

import pytest

from heavy.core.messages import FinishReason
from heavy.core.records import GenerationTiming
from heavy.profiles.schema import RoutingSection
from heavy.replicas.api import Finished, TokenUsage
from heavy.replicas.pace import PREFIXES_MAX, WARM_S, Warmth, assumed, learnt


def finished(prompt: int, cached: int, output: int, first_s: float, decode_s: float) -> Finished:
    usage, timing = TokenUsage(prompt, cached, 0, output), GenerationTiming(0.0, first_s, decode_s)
    return Finished("", "", (), FinishReason.STOP, usage, "r", "m", timing)


def test_the_pace_of_a_profile_is_assumed_first_and_then_learnt() -> None:
    pace = assumed(RoutingSection(prefill_tokens_per_s=10_000, tokens_per_s=100, output_tokens=500))
    assert pace.generation_s == pytest.approx(5.0)
    for _ in range(100):
        pace = learnt(pace, finished(6_000, 1_000, 101, 2.0, 2.0))
    assert pace.prefill_token_s == pytest.approx(1 / 2_500, rel=0.01)
    assert pace.token_s == pytest.approx(0.02, rel=0.01)
    assert pace.generation_s == pytest.approx(2.02, rel=0.02)


def test_short_prefills_and_empty_generations_teach_nothing() -> None:
    pace = assumed(RoutingSection())
    assert learnt(pace, finished(5_000, 4_990, 1, 3.0, 0.0)).prefill_token_s == pace.prefill_token_s
    assert learnt(pace, finished(0, 0, 0, 0.0, 0.0)) == pace


def test_what_a_first_word_takes_without_prefill_is_not_taken_for_prefill() -> None:
    pace = assumed(RoutingSection(prefill_tokens_per_s=10_000))
    for _ in range(100):  # a busy engine: half a second to any first word
        pace = learnt(pace, finished(5_000, 4_990, 50, 0.5, 1.0))
        pace = learnt(pace, finished(5_000, 4_700, 50, 0.53, 1.0))
    assert 1 / pace.prefill_token_s == pytest.approx(10_000, rel=0.1)


def test_a_long_prefill_teaches_more_than_short_ones() -> None:
    pace = assumed(RoutingSection(prefill_tokens_per_s=10_000))
    for _ in range(50):  # one that leads, and one whose tool said much: both waited for the engine's turn
        pace = learnt(pace, finished(4_000, 0, 50, 0.5, 1.0))
        pace = learnt(pace, finished(5_000, 4_700, 50, 0.13, 1.0))
    assert 1 / pace.prefill_token_s > 6_000


def test_what_the_crowd_makes_of_a_token_is_not_taken_for_its_pace() -> None:
    pace = assumed(RoutingSection(tokens_per_s=100, crowding=1.0))
    for _ in range(100):
        pace = learnt(pace, finished(1_000, 990, 101, 0.1, 1.5), fullness=0.5)
    assert pace.token_s == pytest.approx(0.01, rel=0.01)


def test_a_replica_is_known_to_hold_the_longest_prefix_for_a_while() -> None:
    now_s = [0.0]
    warmth = Warmth(now_s=lambda: now_s[0])
    warmth.learn("r", "arm", 5_000)
    warmth.learn("r", "group", 700)
    assert warmth.held("r", "arm", "group") == 5_000
    assert warmth.held("r", "other", "group") == 700
    assert warmth.held("restarted", "arm", "group") == 0
    now_s[0] = WARM_S + 1
    assert warmth.held("r", "arm", "group") == 0


def test_a_replica_that_drops_what_it_should_hold_is_believed_less_one_that_never_reports_is_believed() -> (
    None
):
    warmth = Warmth()
    for replica in ("drops", "silent", "keeps"):
        warmth.learn(replica, "arm", 10_000)
    warmth.check("drops", 10_000, 10_000)
    warmth.check("keeps", 10_000, 10_000)
    for _ in range(50):
        warmth.check("drops", warmth.held("drops", "arm"), 0)
        warmth.check("silent", 10_000, 0)
    assert warmth.held("drops", "arm") < 1_000
    assert warmth.held("silent", "arm") == 10_000
    assert warmth.held("keeps", "arm") == 10_000


def test_what_is_known_is_bounded() -> None:
    warmth = Warmth()
    for index in range(PREFIXES_MAX + 10):
        warmth.learn("r", f"t{index}", 100)
    assert warmth.held("r", "t0") == 0
    assert warmth.held("r", f"t{PREFIXES_MAX + 9}") == 100
