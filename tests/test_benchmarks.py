"""What the speed scripts rest on: the peer computes what we compute, and ratios are read from the right columns."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy
import pytest
import torch
from torch import nn

from smoa_lightning.adapters import SMoAConfig
from smoa_lightning.adapters.smoa import SmoaLinear
from smoa_lightning.configuration.methods import methods

FOLDER = Path(__file__).parents[1] / "benchmarks"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("shape", [(12, 8), (8, 12)])
def test_the_published_recipe_is_the_same_map(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    base = nn.Linear(shape[1], shape[0]).requires_grad_(False)
    peer = script("published_recipe").RecipeLinear(base, r=4, num_subspaces=2)
    layer = SmoaLinear(base, "layer")
    layer.set_adapter("default")
    layer.update_layer("default", SMoAConfig(r=4, num_subspaces=2))
    # The same blocks, in another order inside (ours are ascending): factors go by coordinate.
    for (a, b), theirs_a, theirs_b, rows, cols in zip(
        layer.factors("default"), peer.A, peer.B, peer.rows, peer.cols, strict=True
    ):
        nn.init.normal_(theirs_b)
        a.data.copy_(theirs_a[:, cols.argsort()])
        b.data.copy_(theirs_b[rows.argsort()])
    x = torch.randn(5, shape[1])
    torch.testing.assert_close(layer(x), peer(x), rtol=1e-5, atol=1e-5)


def test_quartiles_stay_inside_what_was_measured() -> None:
    turns, generator = script("turns"), numpy.random.default_rng(0)
    for count in (1, 2, 3, 4, 9):
        own, peer = generator.uniform(1, 2, (2, count)).tolist()
        low, middle, high = numpy.quantile([a / b for a, b in zip(own, peer, strict=True)], [0.25, 0.5, 0.75])
        assert turns.spread(own, peer) == f"{middle:.2f} ({low:.2f}-{high:.2f})"


SPEED_SCRIPTS = ("training_step", "injection", "epoch", "generation_speed", "scoring_speed", "step_time")


@pytest.mark.parametrize("name", SPEED_SCRIPTS)
def test_a_speed_script_has_the_arguments_of_the_backbone(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))  # as if it were started there: scripts import their neighbours
    for variable in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TOKENIZERS_PARALLELISM"):  # scripts set them
        monkeypatch.setenv(variable, os.environ.get(variable, "1"))
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
    with pytest.raises(SystemExit) as ended:
        script(name).main()
    assert ended.value.code == 0
    told = capsys.readouterr().out
    assert all(word in told for word in ("--backbone", "--dtype", "--device"))


def test_ratios_between_two_versions() -> None:
    compare = script("compare")
    text = (
        "4x8 tokens\n| method | / lora | s |\n|---|---|---|\n| lora | 1.00 (1.00-1.00) | 0.5 |\n| smoa | x | 2e-1 |\n"
    )
    values = compare.parsed(text)
    assert values == {"4x8 tokens: lora": 0.5, "4x8 tokens: smoa": 0.2}
    before = {name: [value, value] for name, value in values.items()}
    now = {"4x8 tokens: lora": [0.5, 0.5], "4x8 tokens: smoa": [0.3, 0.25], "new": [1.0]}
    table, regressions = compare.table(before, now, 1.1)
    assert regressions == 1
    assert "| 4x8 tokens: smoa | 1.38 (1.25-1.50) | **slower** |" in table
    assert "| 4x8 tokens: lora | 1.00 (1.00-1.00) |  |" in table
    assert "| new | only now | |" in table


def test_a_baseline_of_another_command_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "kept.json"
    file.write_text(json.dumps({"command": ["other.py"], "values": {}}))
    command = [sys.executable, str(FOLDER / "compare.py"), "--repeats", "0", "--baseline", str(file)]
    done = subprocess.run(
        [*command, "--", "published_recipe.py"], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 1
    assert "has the values of a different command: other.py" in done.stderr


def measurement(wall: float, cpu: float) -> dict[str, object]:
    marks = {"imported": [wall / 4, cpu / 4], "training": [wall / 2, cpu / 2], "end": [wall - 1, cpu - 1]}
    return {"wall": wall, "cpu": cpu, "memory": 100.0 * wall, "marks": marks, "losses": []}


def test_whole_processes_against_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    against = script("fit_against_peers")
    found = {"lora": [measurement(8, 6), measurement(16, 6)], "hf": [measurement(16, 8), measurement(16, 8)]}
    assert "| lora | 0.75 (0.62-0.88) | 0.75 (0.75-0.75) | 0.75 (0.62-0.88) | 12.0 | 6.0 | 1200.0 |" in against.ratios(
        found, "hf"
    )
    assert against.stages(found["hf"]) == {"imported": (4, 2), "training": (4, 2), "end": (7, 3), "exit": (1, 1)}
    assert "* hf: imported 4.00 (2.00), training 4.00 (2.00), end 7.00 (3.00), exit 1.00 (1.00)" in against.time_lines(
        found
    )


def test_a_peer_script_imports_nothing_of_ours() -> None:
    for file in (FOLDER / "peers").glob("*.py"):
        assert "smoa" not in file.read_text(encoding="utf-8")


def test_the_script_of_the_accelerator_records_what_fails(tmp_path: Path) -> None:
    variables = {"PYTHON": sys.executable, "PEER_PYTHON": "false", "SECONDS_IN_ALL": "0"}  # no time for any step
    command = ["bash", str(FOLDER / "gpu_check.sh"), str(tmp_path), "--dry-run"]
    subprocess.run(command, check=True, capture_output=True, env=os.environ | variables)
    result = json.loads((tmp_path / "gpu_check.json").read_text(encoding="utf-8"))
    status = {step["name"]: step["status"] for step in result["steps"]}
    assert result["dry_run"] is True
    assert status["tests"] == status["steps_eager"] == status["steps_graphs"] == "no time left"
    assert status["scoring"].startswith("skipped: lm-eval")


def test_the_peer_knows_all_twelve_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    ours = {method.key for method in methods().values() if method.group == "ours"}
    assert not ours & set(script("twelve_methods").METHODS)
