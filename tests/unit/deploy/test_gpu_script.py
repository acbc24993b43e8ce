"""The script that waits for a GPU: what it needs none for."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from heavy.profiles.loader import read_profile
from tests.gpu import __main__ as gpu
from tests.gpu.k2_model import Cut, write
from workers.launch import Place, engine_command


def test_int4_and_bf16_differ_in_their_quantisation_alone(tmp_path: Path) -> None:
    int4, bf16 = (
        json.loads((write(tmp_path / kind, Cut(), kind) / "config.json").read_text())
        for kind in ("int4", "bf16")
    )
    weights = int4.pop("quantization_config")["config_groups"]["group_0"]["weights"]
    assert int4 == bf16
    assert (weights["num_bits"], weights["group_size"], weights["symmetric"]) == (4, 32, True)
    assert (tmp_path / "int4" / "tokenizer.json").exists()


def test_its_profile_is_one_and_becomes_a_command_on_a_gpu(tmp_path: Path) -> None:
    model = write(tmp_path / "int4", Cut(), "int4")
    file = tmp_path / "k2.toml"
    file.write_text(gpu.profile_text(model, Cut(), "int4", sys.executable))
    profile = read_profile(file)
    assert profile.request.extra["chat_template_kwargs"] == {"thinking": False}
    line = " ".join(engine_command(profile, Place("127.0.0.1", 30_000)).argv)
    for part in ("--device cuda", "--load-format dummy", "--tool-call-parser kimi_k2"):
        assert part in line


def test_without_a_gpu_it_says_so_and_measures_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu, "gpu_name", lambda: "")
    monkeypatch.setattr(sys, "argv", ["gpu", "--engine-python", sys.executable])
    assert gpu.main() == gpu.NO_GPU
    assert "no GPU here: nothing was measured. --rehearse goes" in capsys.readouterr().err


def test_the_page_has_every_figure() -> None:
    rates = {
        kind: gpu.Rates({n: each * n for n in gpu.STREAMS}, {n: 1.1 * each * n for n in gpu.STREAMS})
        for kind, each in (("int4", 100.0), ("bf16", 50.0))
    }
    text = gpu.page("a GPU", Cut(), rates, {"int4": gpu.Seen(8, 0.5), "bf16": gpu.Seen(7, 0.4)})
    assert "| int4 | 8 | 800 | 880 | 0.909 | 2.00 |" in text
    assert "8 tool calls parsed" in text
