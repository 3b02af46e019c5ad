"""A run with a relative backbone path is used from another folder, and after its backbone has moved."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from smoa_lightning.__main__ import main
from smoa_lightning.common.checksums import sealed
from smoa_lightning.common.errors import UserError
from smoa_lightning.records.record import ADAPTER_FACTS
from smoa_lightning.training.adapter_folder import load_adapter
from tests.conftest import EXPERIMENTS
from tests.runs import only_run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Path, piqa_folder: Path) -> Path:
    """A folder with a model, rows and a run that names both by relative paths."""
    root = tmp_path_factory.mktemp("made")
    shutil.copytree(tiny_backbone, root / "model")
    shutil.copytree(piqa_folder, root / "rows")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        status = main(
            [
                *("fit", "--config", str(EXPERIMENTS / "piqa.yaml"), "--model.backbone.source", "local"),
                *("--model.backbone.path", "model", "--data.source", "local", "--data.path", "rows"),
                *("--model.adapter.r", "4", "--trainer.max_steps", "2", "--data.selection_rows", "8"),
                *("--data.batch_size", "8", "--run.score_base", "false", "--run.score_report", "false"),
                *("--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"),
                *("--trainer.log_every_n_steps", "1", "--rank_monitor.max_layers", "0"),
            ]
        )
    assert status == 0
    return root


@pytest.fixture
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder, and another working directory."""
    copy = tmp_path / "copy"
    shutil.copytree(made, copy)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return copy


def test_a_run_is_used_from_another_folder(made: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = only_run(made / "runs")
    facts = json.loads((run / "adapter" / "best" / ADAPTER_FACTS).read_text())
    assert facts["backbone"]["path"] == str(made / "model")
    assert json.loads((run / "record.json").read_text())["config"]["model"]["backbone"]["path"] == "model"
    assert main(["generate", str(run), "--prompt", "x", "--max_new_tokens", "2"]) == 0
    assert main(["rank", str(run), "--layers", "1", "--output", "ranks"]) == 0
    checkpoint = str(run / "checkpoints" / "best.ckpt")
    assert main(["validate", "--ckpt_path", checkpoint, "--run.folder", "out", "--data.selection_rows", "4"]) == 0
    assert "differs from the checkpoint: model" not in capsys.readouterr().err


def test_facts_of_earlier_versions_have_a_relative_path(folder: Path, made: Path) -> None:
    adapter = only_run(folder / "runs") / "adapter" / "best"
    facts = json.loads((adapter / ADAPTER_FACTS).read_text())
    facts["backbone"]["path"] = "model"
    del facts["backbone"]["allow_missing"]
    (adapter / ADAPTER_FACTS).write_text(json.dumps(sealed(facts)))
    assert load_adapter(adapter)[0].get_base_model().name_or_path == str(made / "model")


def test_a_moved_backbone_is_named(
    made: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, moved = only_run(made / "runs"), str(folder / "model")
    (made / "model").rename(made / "hidden")
    try:
        assert main(["generate", str(run), "--prompt", "x"]) == 2
        assert "name its folder with --model.backbone.path FOLDER" in capsys.readouterr().err
        path = ["--model.backbone.path", moved]
        assert main(["generate", str(run), "--prompt", "x", "--max_new_tokens", "2", *path]) == 0
        assert main(["rank", str(run), "--layers", "1", "--output", "ranks", "--backbone", moved]) == 0
        assert load_adapter(run, moved)[0].get_base_model().name_or_path == moved
        monkeypatch.setenv("HOME", str(folder))
        assert load_adapter(run, "~/model")[1].eos_token_id == 2
        with pytest.raises(UserError, match=r"nowhere does not exist"):
            load_adapter(run, "nowhere")
    finally:
        (made / "hidden").rename(made / "model")
