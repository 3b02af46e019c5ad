"""The command `rank`: numbers against dense float64 differences of merged and original weights, table and figure."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import peft
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from smoa_lightning import FineTuneModule
from smoa_lightning.__main__ import main
from smoa_lightning.adapters import SMoAConfig
from smoa_lightning.adapters.bottleneck import BottleneckConfig
from smoa_lightning.backbones.backbone import BackboneConfig
from smoa_lightning.common.errors import UserError
from smoa_lightning.records.rank_figure import Panel, draw
from smoa_lightning.records.tables import without_markup
from smoa_lightning.training.adapter_folder import load_adapter, save_adapter
from smoa_lightning.training.export import merge
from smoa_lightning.training.export.source import TRUNCATED, check_updates_weights, open_source
from smoa_lightning.training.truncation import open_rows, truncate
from smoa_lightning.training.truncation_report import markdown
from smoa_lightning.training.update_rank import measure

Folder = Callable[..., Path]
EXPERIMENTS = Path(__file__).parents[2] / "experiments"
FACTS = {
    "task": "piqa",
    "which": "best",
    "step": 1,
    "data_source": "local",
    "selection": {"metric": "acc", "score": None},
}


@pytest.fixture
def folder(tiny_backbone: Path, tmp_path: Path) -> Folder:
    """Make an adapter folder, or a run folder around it, whose parameters have moved away from their start."""

    def make(name: str, config: Any, dtype: Any = "float32", run: bool = False, plant: int = 0) -> Path:
        module = FineTuneModule(BackboneConfig(source="local", path=str(tiny_backbone), dtype=dtype), config)
        module.configure_model()
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for key, parameter in module.named_parameters():
                if plant and key.endswith("proj.weight"):
                    left, right = (torch.randn(size, plant, generator=generator) for size in parameter.shape)
                    parameter.add_(left @ right.T, alpha=0.2)
                elif parameter.requires_grad and not plant:
                    parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.02)
        made = tmp_path / name
        (made / "adapter").mkdir(parents=True)
        save_adapter(module, made / "adapter" / "best" if run else made / "saved", FACTS)
        if run:
            record = {"name": f"piqa-{name}", "signature": "s", "status": "finished"}
            (made / "record.json").write_text(json.dumps(record))
        return made if run else made / "saved"

    return make


def differences(adapter: Path, backbone: Path) -> dict[str, torch.Tensor]:
    """W' - W in float64, W read from the backbone's own file and W' merged by peft."""
    original = load_file(backbone / "model.safetensors")
    model, _ = load_adapter(adapter)
    assert isinstance(model, PeftModel)
    merged = model.double().merge_and_unload().state_dict()  # type: ignore[operator]
    return {name: merged[name] - original[name].double() for name in original if name in merged}


CONFIGS = {
    "lora": peft.LoraConfig(r=2, lora_alpha=4),
    "dora": peft.LoraConfig(r=2, use_dora=True),
    "smoa": SMoAConfig(r=4, num_subspaces=2),
    "hira": peft.HiraConfig(r=2),
    "pissa": peft.LoraConfig(r=2, init_lora_weights="pissa"),
    "olora": peft.LoraConfig(r=2, init_lora_weights="olora"),
    "vera": peft.VeraConfig(r=3),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_ranks_are_those_of_the_difference_from_the_true_backbone(
    name: str, folder: Folder, tiny_backbone: Path
) -> None:
    adapter = folder(name, CONFIGS[name])
    run = measure(adapter, 100)
    expected = differences(adapter, tiny_backbone)
    assert len(run.layers) == run.adapted == 10
    for layer in run.layers:
        delta = expected[f"{layer.name}.weight"]
        values = torch.linalg.svdvals(delta)
        found = torch.tensor(layer.values, dtype=torch.float64)
        torch.testing.assert_close(found, values, rtol=0, atol=2e-6 * float(values[0]))
        shares = values / values.sum()
        entropy = -float((shares * shares.clamp_min(1e-300).log()).sum())
        assert layer.rank.effective == pytest.approx(math.exp(entropy), rel=1e-3)
        assert layer.rank.stable == pytest.approx(float(values.square().sum() / values[0] ** 2), rel=1e-4)
        assert layer.rank.numerical <= layer.bound
        assert layer.shape == tuple(delta.shape)
    known = {"lora": {2}, "pissa": {4}, "olora": {4}, "vera": {3}}
    assert {layer.bound for layer in run.layers} == known.get(name, {min(layer.shape) for layer in run.layers})
    if name in known:
        assert {layer.rank.numerical for layer in run.layers} == known[name]


def test_pissa_on_a_half_precision_backbone(folder: Folder) -> None:
    """What rounding the moved weight to bfloat16 adds has full rank, and is not counted."""
    run = measure(folder("pissa", CONFIGS["pissa"], dtype="bfloat16"), 4)
    assert all(0 < layer.rank.numerical <= layer.bound == 4 for layer in run.layers)


def test_full_fine_tuning_has_a_rank(folder: Folder, tiny_backbone: Path) -> None:
    run_folder = folder("full", None, run=True)
    run = measure(run_folder, 4)
    original = load_file(tiny_backbone / "model.safetensors")
    trained = load_file(run_folder / "adapter" / "best" / "model.safetensors")
    assert run.adapted == 14  # the output embedding is none of the layers
    for layer in run.layers:
        name = f"{layer.name}.weight"
        values = torch.linalg.svdvals(trained[name].double() - original[name].double())
        torch.testing.assert_close(torch.tensor(layer.values, dtype=torch.float64), values, rtol=1e-4, atol=1e-6)


def test_table_and_figure_of_two_runs(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    smoa, lora = (folder(name, CONFIGS[name], run=True) for name in ("smoa", "lora"))
    assert main(["rank", str(smoa), "--against", str(lora), "--layers", "2"]) == 0
    shown = capsys.readouterr().out
    table = (smoa / "rank.md").read_text()
    assert without_markup(table).splitlines() == shown.splitlines()[: len(table.splitlines()) - 2]  # two lines of rules
    assert "|" not in shown
    assert "| piqa-smoa | 1,280 |" in table  # r (d_in + d_out) / K
    assert "| piqa-lora | 1,280 |" in table
    assert "2 of 10" in table
    mine, other = json.loads((smoa / "rank.json").read_text())
    assert [layer["name"] for layer in mine["layers"]] == [layer["name"] for layer in other["layers"]]
    assert (smoa / "rank.png").read_bytes().startswith(b"\x89PNG")
    svg = (smoa / "rank.svg").read_text()
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    assert "piqa-smoa" in svg
    assert "piqa-lora" in svg
    assert "LoRA with as many parameters" not in svg
    assert not list(smoa.glob(".rank*"))
    assert main(["rank", str(smoa), "--layers", "1"]) == 0
    assert "LoRA with as many parameters" in (smoa / "rank.svg").read_text()  # alone: a line where LoRA would end


def test_updates_without_a_rank_and_bad_arguments(
    folder: Folder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, config, match in (
        ("prompt", peft.PromptTuningConfig(num_virtual_tokens=2), "PROMPT_TUNING changes no weight matrix"),
        ("bottleneck", BottleneckConfig(bottleneck_size=4), "so it has no rank"),
    ):
        assert main(["rank", str(folder(name, config))]) == 2
        assert match in capsys.readouterr().err
    for arguments, match in (
        ([str(tmp_path / "nothing")], "nothing does not exist: name the folder of a run"),
        ([str(tmp_path)], "neither a run with an adapter nor an adapter folder"),
        ([], "the following arguments are required: run"),
        ([str(tmp_path), "--layers", "0"], "at least 1 layer"),
        ([str(tmp_path), "--layers", "many"], "invalid int value"),
    ):
        assert main(["rank", *arguments]) == 2
        assert match in capsys.readouterr().err


def test_a_lora_cut_to_its_rank_has_its_own_scores(
    tiny_arguments: list[str], folder: Folder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    lora = ["--config", str(EXPERIMENTS / "adapters" / "lora.yaml"), "--model.adapter.r", "4", "--lr", "0.05"]
    assert main(["fit", *tiny_arguments, *lora, "--run.folder", str(run), "--run.score_base", "true"]) == 0
    assert main(["rank", str(run), "--truncate", "--layers", "1"]) == 0
    assert without_markup((run / "truncation.md").read_text()) in capsys.readouterr().out
    (found,) = json.loads((run / "truncation.json").read_text())
    scores = {score["rank"]: score for score in found["scores"]}
    assert list(scores) == [0, 1, 2, 4]  # no rank above that of the method
    record = json.loads((run / "record.json").read_text())["metrics"]
    for rank, part in ((0, "base"), (4, "report")):
        for name in ("nll", "acc"):
            assert scores[rank]["metrics"][name] == pytest.approx(record[f"{part}/{name}"], abs=1e-5)
    assert abs(scores[1]["metrics"]["nll"] - scores[4]["metrics"]["nll"]) > 1e-3  # one direction is not enough
    errors = [score["error"] for score in found["scores"]]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] == 1.0
    assert errors[-1] < 1e-6
    header, *lines = (run / "truncation.csv").read_text().splitlines()
    assert header.startswith("run,method,rank,error,")
    assert len(lines) == 4
    assert (run / "truncation.png").read_bytes().startswith(b"\x89PNG")
    _a_planted_update_is_flat_from_its_rank_on(folder, run)


def _a_planted_update_is_flat_from_its_rank_on(folder: Folder, run: Path) -> None:
    """A full fine-tuning whose update has rank 3 by construction, on the rows of a run."""
    planted = folder("planted", None, plant=3)
    _, probe = open_rows(run)
    result = truncate("planted", open_source(planted), probe)
    nll = {score.rank: score.metrics["nll"] for score in result.scores}
    assert list(nll) == [0, 1, 2, 4, 8, 16, 32]
    assert all(abs(nll[rank] - nll[32]) < 1e-5 for rank in (4, 8, 16))
    assert all(abs(nll[rank] - nll[32]) > 1e-3 for rank in (0, 1, 2))
    assert result.not_cut == []


@pytest.mark.filterwarnings("ignore::UserWarning")  # of peft, at every saving and loading of tied embeddings
def test_the_last_rank_has_the_score_of_the_record(
    tiny_arguments: list[str],
    tiny_backbone: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A LoRA of an input embedding that is tied to the output embedding, and a merge that changes both."""
    model = AutoModelForCausalLM.from_pretrained(tiny_backbone)
    model.config.tie_word_embeddings = True
    model.lm_head.weight = model.model.embed_tokens.weight
    tied, run = tmp_path / "tied", tmp_path / "run"
    model.save_pretrained(tied)
    AutoTokenizer.from_pretrained(tiny_backbone).save_pretrained(tied)
    lora = ["--config", str(EXPERIMENTS / "adapters" / "lora.yaml"), "--model.adapter.r", "2", "--lr", "0.05"]
    targets = ["--model.adapter.target_modules", "[embed_tokens,q_proj]", "--model.backbone.path", str(tied)]
    assert main(["fit", *tiny_arguments, *lora, *targets, "--run.folder", str(run), "--run.score_base", "true"]) == 0
    source, probe = open_rows(run)
    result = truncate("run", source, probe)
    assert result.scores[-1].metrics["nll"] == pytest.approx(result.recorded["nll"], abs=1e-5)
    assert result.not_cut == ["model.embed_tokens.weight"]
    text = markdown([result])
    base = json.loads((run / "record.json").read_text())["metrics"]["base/nll"]
    assert f"nll {base:.4f}" in next(
        line for line in text.splitlines() if line.startswith("The base model, by the record")
    )
    assert "1 other trained parameter is not cut: model.embed_tokens.weight. Rank 0 keeps it, so" in text
    assert "2 other trained parameters are not cut, such as a. Rank 0 keeps them" in markdown(
        [dataclasses.replace(result, not_cut=["a", "b"])]
    )
    assert abs(result.scores[0].metrics["nll"] - base) > 1e-5
    monkeypatch.setattr(merge, "_untie_adapted", lambda model: None)
    with pytest.raises(UserError, match=r"cannot cut the update of lora: with all of it merged .* in the record"):
        truncate("run", source, probe)


def test_truncate_needs_rows_and_an_update_of_weights(
    folder: Folder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompt = folder("prompt", peft.PromptTuningConfig(num_virtual_tokens=2))
    for run, match in (
        (prompt, "changes no weight, so"),
        (folder("lora", CONFIGS["lora"]), "--truncate scores the report rows of a run, but for"),
    ):
        assert main(["rank", str(run), "--truncate"]) == 2
        assert match in capsys.readouterr().err
        assert not list(run.glob("rank.*"))
    with pytest.raises(UserError, match=r"^rank: prompt_tuning puts virtual tokens .* leave --truncate out"):
        check_updates_weights(open_source(prompt), None, TRUNCATED)
    (tmp_path / "pair" / "weights").mkdir(parents=True)
    (tmp_path / "pair" / "weights" / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match=r"^rank: .*pair holds a prompt together with .* leave --truncate out"):
        open_rows(tmp_path / "pair")


def test_the_same_figure_is_the_same_file(tmp_path: Path) -> None:
    panels = [Panel("p", {"a": [1.0, 0.5, 1e-4], "b": [1.0]}, 2.5)]
    for name in ("one", "two"):
        draw(panels, "title", [tmp_path / f"{name}.svg"])
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
