"""Engine servers under test: started as they are in production, by their command line.

To put another engine under test, add it to ENGINES: a name, what it differs in, and a function that starts a
server (`small`: one that runs one generation and lets one wait) and gives its base URL until closed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest

from .conformance import Capabilities, table
from tests_support.engines import server

ROOT = Path(__file__).parents[3]
MODELS = ROOT / "tests" / "fixtures" / "models"


@dataclass(frozen=True, slots=True)
class EngineUnderTest:
    """One engine: how it differs, and how to start a server of it."""

    name: str
    capabilities: Capabilities
    start: Callable[[bool], AbstractContextManager[str]]
    marks: tuple[pytest.MarkDecorator, ...] = ()


SMALL = ("--max-running-requests", "1", "--max-queued-requests", "1")


def simulated(small: bool) -> AbstractContextManager[str]:
    """A talkative simulated server: answers of 2,000 tokens, 2 ms each."""
    flags = (
        "--profile",
        "laptop",
        "--ttft-ms",
        "5",
        "--itl-ms",
        "2",
        "--answer-tokens",
        "2000",
        "--seed",
        "1",
    )
    return server("workers.engines.simulated", *flags, *(SMALL if small else ()))


def openvino(model: str) -> Callable[[bool], AbstractContextManager[str]]:
    """An OpenVINO server over one of the untrained models."""

    def start(small: bool) -> AbstractContextManager[str]:
        flags = ("--model-path", str(MODELS / model), "--threads", "1")
        return server("workers.engines.openvino", *flags, *(SMALL if small else ()))

    return start


BLOCKS = Capabilities(
    cached_tokens="calculated, whole blocks of 32",
    cache_granule_tokens=32,
    seeds_hold_in_a_crowd=False,  # sums depend on what else is in the batch, to the last bits
    continues_exactly=False,  # what an untrained model says is not cut into the same tokens again
)
ENGINES: tuple[EngineUnderTest, ...] = (
    EngineUnderTest(
        "simulated", Capabilities(cached_tokens="by message", has_control_tokens=False), simulated
    ),
    EngineUnderTest("openvino", BLOCKS, openvino("tiny-k2-int4")),
    EngineUnderTest("openvino-hermes", BLOCKS, openvino("tiny-hermes-int4")),
)
PARAMETERS = [pytest.param(one, id=one.name, marks=one.marks) for one in ENGINES]


@pytest.fixture(scope="module", params=PARAMETERS)
def engine(request: pytest.FixtureRequest) -> Iterator[tuple[str, Capabilities]]:
    """Base URL and capabilities of a server of each engine."""
    under_test: EngineUnderTest = request.param
    with under_test.start(False) as url:
        yield url, under_test.capabilities


@pytest.fixture(scope="module", params=PARAMETERS)
def small_engine(request: pytest.FixtureRequest) -> Iterator[tuple[str, Capabilities]]:
    """The same with room for one running and one waiting generation."""
    under_test: EngineUnderTest = request.param
    with under_test.start(True) as url:
        yield url, under_test.capabilities


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The differences between the engines, printed after every run."""
    terminalreporter.section("engines: what differs")
    terminalreporter.write_line(table({one.name: one.capabilities for one in ENGINES}))
