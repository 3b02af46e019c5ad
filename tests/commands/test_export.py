"""The command ``export``: the report of a real run, the upload, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from smoa_lightning.__main__ import main
from smoa_lightning.common.errors import UserError
from smoa_lightning.training.export import export as module
from smoa_lightning.training.export.export import Options, export


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Path, piqa_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("export") / "run"
    status = main(
        [
            *("fit", "--config", str(Path(__file__).parents[2] / "experiments" / "piqa.yaml")),
            *("--model.backbone.source", "local", "--model.backbone.path", str(tiny_backbone)),
            *("--data.source", "local", "--data.path", str(piqa_folder), "--run.folder", str(folder)),
            *("--model.adapter.r", "4", "--data.batch_size", "8", "--data.selection_rows", "8"),
            *("--trainer.max_steps", "4", "--run.score_base", "false"),
            *("--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"),
        ]
    )
    assert status == 0
    return folder


def test_metrics_of_the_export_are_those_of_the_run(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()  # an empty folder is as good as none
    capsys.readouterr()
    assert main(["export", str(trained), "--output", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    facts = json.loads((tmp_path / "out" / "export.json").read_text())
    record = json.loads((trained / "record.json").read_text())
    fidelity = facts["fidelity"]
    assert fidelity["rows"] == 24
    assert fidelity["primary"] == "acc"
    assert fidelity["before"]["acc"] == fidelity["after"]["acc"] == record["metrics"]["report/acc"]
    assert fidelity["before"]["nll"] == pytest.approx(record["metrics"]["report/nll"], abs=1e-5)
    assert "the first report rows of piqa (local)" in fidelity["place"]
    assert 256 < fidelity["positions"] <= 512
    assert f"| acc | {fidelity['before']['acc']:.4f} |" in printed
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"* Run: {record['name']}, step 4" in card
    assert f"| report/acc | {record['metrics']['report/acc']:.4f} |" in card
    assert "\nbase_model:" not in card  # the hub refuses a path
    assert not [path for path in tmp_path.iterdir() if path.name != "out"]


def test_without_rows_the_logits_are_compared_on_a_text(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = shutil.copytree(trained / "adapter" / "best", tmp_path / "moved")
    arguments = ["export", str(adapter), "--output", str(tmp_path / "out"), "--format", "lora", "--rank", "2"]
    assert main(arguments) == 0
    assert "a fixed text (the adapter folder is not in a run folder" in capsys.readouterr().out
    facts = json.loads((tmp_path / "out" / "export.json").read_text())
    assert (facts["rank"], facts["fidelity"]["rows"], facts["fidelity"]["before"]) == (2, 0, {})
    assert 0.01 < facts["update_error"] <= facts["worst_layer_error"] < 1


def test_no_metric_is_measured_with_zero_rows(trained: Path, tmp_path: Path, tiny_backbone: Path) -> None:
    moved = str(shutil.copytree(tiny_backbone, tmp_path / "moved"))
    text = export(trained, tmp_path / "out", Options(format="adapter", fidelity_rows=0, backbone=moved))
    assert "| acc |" not in text
    assert "the first report rows of piqa" in text


def test_a_failure_leaves_no_folder(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device", "model.safetensors")

    monkeypatch.setattr(module, "write_model", full)
    assert main(["export", str(trained), "--output", str(tmp_path / "out"), "--fidelity_rows", "0"]) == 75
    assert not list(tmp_path.iterdir())


class Hub:
    """Notes what is uploaded; the address of a refused repository is an error of the network."""

    endpoint = "https://huggingface.co"
    calls: list[tuple[str, Any]] = []  # noqa: RUF012

    def create_repo(self, repository: str, **settings: Any) -> None:
        if repository.startswith("refused/"):
            raise ConnectionError("403 Forbidden")
        self.calls.append(("create", repository))

    def upload_folder(self, repo_id: str, folder_path: Path, **settings: Any) -> None:
        self.calls.append((repo_id, sorted(path.name for path in folder_path.iterdir())))


def test_push(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    arguments = ["export", str(trained), "--format", "adapter", "--fidelity_rows", "0", "--output"]
    capsys.readouterr()
    assert main([*arguments, str(tmp_path / "no_token"), "--push", "me/model"]) == 2
    assert "--push needs a token of huggingface.co: run 'hf auth login'" in capsys.readouterr().err
    assert not (tmp_path / "no_token").exists()
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_x")
    assert main([*arguments, str(tmp_path / "bad"), "--push", "a/b/c"]) == 2
    assert "--push 'a/b/c' is not a repository: use USER/NAME" in capsys.readouterr().err
    assert main([*arguments, str(tmp_path / "out"), "--push", "me/model"]) == 0
    assert "uploaded to https://huggingface.co/me/model" in capsys.readouterr().out
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert Hub.calls == [("create", "me/model"), ("me/model", names)]
    with pytest.raises(UserError, match=r"is complete, but the upload to 'refused/model' failed: 403 Forbidden"):
        export(trained, tmp_path / "kept", Options(format="adapter", fidelity_rows=0, push="refused/model"))
    assert (tmp_path / "kept" / "export.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["/nowhere", "--output", "OUT"], "/nowhere does not exist"),
        (["RUN"], "export: the following arguments are required: --output; see export --help"),
        (["RUN", "--output", "RUN"], "exists and is not an empty folder: name a new folder with --output"),
        (["RUN", "--output", "RUN/export"], "is inside the folder of a run"),
        (["RUN", "--output", "RUN/a/b"], "name a folder outside of it with --output"),
        (["RUN", "--output", "RUN/adapter/best/merged", "--format", "adapter"], "is inside an adapter folder"),
        (["RUN", "--output", "OUT", "--rank", "4"], "--rank is for --format lora, but the format is merged"),
        (["RUN", "--output", "OUT", "--format", "lora", "--rank", "0"], "--rank is 0; the smallest value is 1"),
        (["RUN", "--output", "OUT", "--format", "adapter", "--dtype", "float16"], "--dtype is for --format merged"),
        (["RUN", "--output", "OUT", "--format", "gguf"], "invalid choice: 'gguf'"),
        (["RUN", "--output", "OUT", "--fidelity_rows", "-1"], "--fidelity_rows is -1; the smallest value is 0"),
    ],
)
def test_bad_input_is_one_sentence(
    arguments: list[str], words: str, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"RUN": str(trained), "OUT": str(tmp_path / "out")}
    capsys.readouterr()
    assert main(["export", *(_filled(argument, places) for argument in arguments)]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
    assert not any((trained / name).exists() for name in ("export", "a", "adapter/best/merged"))


def _filled(argument: str, places: dict[str, str]) -> str:
    first, slash, rest = argument.partition("/")
    return f"{places.get(first, first)}{slash}{rest}"


def test_a_pair_of_adapters_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="holds a prompt together with an adapter of weights, and no single folder"):
        export(tmp_path, tmp_path / "out", Options())


@pytest.mark.parametrize(("word", "command"), [("merge", "export"), ("train", "fit"), ("exprot", "export")])
def test_names_of_other_programs_are_hints(word: str, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([word]) == 2
    assert f"unknown command {word!r}; did you mean {command}?" in capsys.readouterr().err
