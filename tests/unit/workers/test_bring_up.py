"""What an operator wrote is read before anything is started: a bring-up may take minutes."""

from __future__ import annotations

from pathlib import Path

import pytest

from heavy.config import Settings
from heavy.core.errors import ConfigError
from heavy.profiles.loader import read_profile
from workers.fleet import placement
from workers.fleet.placement import Node
from workers.local import LocalCluster, LocalPlan, require_room


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


def test_gpus_that_a_cluster_of_our_own_can_never_have_are_told_by_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "mine.toml"
    head = 'name = "mine"\ntitle = "Mine"\nengine = "simulated"\nmodel = "m"\ncontext_tokens = 4096\n'
    file.write_text(f"{head}[serve]\ngpus = 8\n")
    machine = Node("127.0.0.1", {"CPU": 2.0}, {"CPU": 2.0})
    monkeypatch.setattr(placement, "nodes", lambda: [machine])
    says = r"mine\.toml:7: serve\.gpus: a replica of mine needs 8 GPU on one node; .* set RAY_ADDRESS"
    with pytest.raises(ConfigError, match=says):
        require_room([read_profile(file)])
