"""What an operator wrote is read before anything is started: a bring-up may take minutes."""

from __future__ import annotations

from pathlib import Path

import pytest

from heavy.config import Settings
from heavy.core.errors import ConfigError
from workers.local import LocalCluster, LocalPlan


@pytest.fixture
def tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tokens").write_text("tenant:short\n")


@pytest.mark.parametrize(
    ("changes", "fault"),
    [({"tokens_file": "tokens"}, "tokens, line 1"), ({"host": "0.0.0.0"}, "HEAVY_TOKENS_FILE")],
)
async def test_a_fault_in_who_may_call_ends_it_at_once(
    changes: dict[str, str], fault: str, tokens: None
) -> None:
    started: list[str] = []
    cluster = LocalCluster(
        LocalPlan(("simulated",)), Settings(**changes), lambda part, state, detail: started.append(part)
    )
    with pytest.raises(ConfigError, match=fault):
        await cluster.start()
    assert started == []
