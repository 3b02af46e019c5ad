"""Runs of a study with training: runs do not affect each other, trials end early, TensorBoard shows all runs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from smoa_lightning.ablation.execution.aggregate import write_cell
from smoa_lightning.ablation.execution.fitting import fit
from smoa_lightning.ablation.execution.ledger import Pruned
from smoa_lightning.ablation.execution.pruning import TrialPruning
from smoa_lightning.ablation.execution.storage import open_storage
from smoa_lightning.ablation.execution.work import Tools, Work
from smoa_lightning.ablation.execution.worker_id import WorkerId
from smoa_lightning.ablation.study.expand import load_study
from smoa_lightning.ablation.study.space import Run, Study
from smoa_lightning.backbones.backbone import BackboneConfig, load_model, locate
from smoa_lightning.common.errors import UserError
from smoa_lightning.common.process_cache import cached, process_cache
from smoa_lightning.records.tensorboard_tags import tag_of
from smoa_lightning.training.callbacks.cost_monitor import peak_memory_megabytes, reset_peak_memory
from smoa_lightning.training.cli import FineTuneCLI
from tests.browser import BROWSER, shown, tensorboard
from tests.conftest import EXPERIMENTS
from tests.tensorboard_log import columns, hparams

STUDY = """
name: small
base: [{experiments}/piqa.yaml]
axes:
  method:
    - full: {{model.adapter: null, lr: 1.0e-3}}     # trains the backbone's own weights
    - lora: {{config: {experiments}/adapters/lora.yaml, model.adapter.init_args.lora_dropout: 0.2}}
    - smoa: {{config: {experiments}/adapters/smoa_blocks.yaml, r: 4, dropout: 0.1}}
baseline: {{method: lora}}
objective: acc
seeds: 2
retries: 0
overrides:
  model.backbone.source: local
  model.backbone.path: {backbone}
  data.source: local
  data.path: {piqa}
  data.selection_rows: 16
  data.batch_size: 16
  data.limit_train_rows: 64
  trainer.max_epochs: 1
  trainer.accelerator: cpu
  trainer.log_every_n_steps: 1
"""
TOOLS = Tools(fit, write_cell, TrialPruning)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Path, piqa_folder: Path) -> Study:
    file = tmp_path_factory.mktemp("study") / "small.yaml"
    file.write_text(STUDY.format(experiments=EXPERIMENTS, backbone=tiny_backbone, piqa=piqa_folder))
    return load_study([file])


@pytest.fixture(scope="module")
def done(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the study, carried out by one worker."""
    folder = tmp_path_factory.mktemp("studies") / "small"
    storage = open_storage(None, folder)
    with process_cache():
        work = Work(study, folder, storage, TOOLS, WorkerId.of(os.getpid()))
        work.until_done(poll=0.01)
        assert work.status.failures() == []
    return folder


def test_runs_of_one_worker_are_the_same_as_in_new_processes(study: Study, done: Path, tmp_path: Path) -> None:
    """The last run of the worker, after five other runs; two of them trained the backbone itself."""
    run = list(study.final_runs())[-1]
    command = [sys.executable, "-m", "smoa_lightning", "fit", *run.arguments, "--run.folder", str(tmp_path / "fresh")]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    fresh = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=300)
    assert fresh.returncode == 0, fresh.stderr[-3000:]
    here = done / "runs" / run.name
    assert (here / "items.jsonl").read_bytes() == (tmp_path / "fresh" / "items.jsonl").read_bytes()
    weights = "adapter/best/adapter_model.safetensors"
    assert (here / weights).read_bytes() == (tmp_path / "fresh" / weights).read_bytes()


def test_records_have_the_facts_about_the_study(study: Study, done: Path) -> None:
    for run in study.final_runs():
        record = json.loads((done / "runs" / run.name / "record.json").read_text())
        facts = record["ablation"]
        assert (facts["study"], facts["cell"], facts["stage"]) == ("small", run.cell.name, "final")
        assert (facts["seed"], facts["trial"], facts["signature"]) == (run.seed, None, run.signature)
        assert 0 < facts["seconds"] < 120
        baseline = run.cell.name == "method=lora" and run.seed == 0
        assert ("base/acc" in record["metrics"]) == baseline  # the base model is scored once
        assert not (done / "runs" / run.name / "checkpoints").exists()
        assert (done / "runs" / run.name / "adapter" / "best").is_dir()
        assert not (done / "runs" / run.name / "adapter" / "last").exists()


def test_tensorboard_has_every_run_and_one_aggregate_for_each_cell(study: Study, done: Path) -> None:
    for cell in study.cells:
        scores = []
        for seed in study.seeds:
            of_run, _ = hparams(done / "runs" / f"{cell.name},seed={seed}")
            assert (of_run["ablation/cell"], of_run["ablation/seeds"]) == (cell.name, 1)
            assert of_run["axis/method"] == cell.labels["method"]
            scores.append(of_run["final/acc"])
        values, scalars = hparams(done / "cells" / cell.name)
        differing = {"seed": -1.0, "ablation/stage": "mean", "ablation/seeds": 2.0}
        settings = {name for name in of_run if not name.startswith("final/")}
        assert values.keys() == of_run.keys()
        assert {name: values[name] for name in settings} == {name: of_run[name] for name in settings} | differing
        assert values["final/acc"] == pytest.approx(sum(scores) / 2)
        assert scalars == {"seeds/acc": pytest.approx(scores[-1])}
        events = EventAccumulator(str(done / "cells" / cell.name)).Reload()
        (text,) = events.Tensors("interval/acc/text_summary")
        assert text.tensor_proto.string_val[0].decode().splitlines()[2].startswith(f"| {sum(scores) / 2:.4f} |")
        assert columns(done / "cells" / cell.name)[:3] == ["axis/method", "learning_rate", "rank"]


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_a_browser_shows_every_run_and_cell_in_the_hparams_tab(study: Study, done: Path) -> None:
    folders = {path.parent for path in done.glob("*/*/events.out.tfevents.*")}
    assert len(folders) == len(study.cells) * (len(study.seeds) + 1)
    names = {str(folder.relative_to(done)) for folder in folders}
    scores = {f"{hparams(folder)[0]['final/acc']:#.5g}" for folder in folders}
    with tensorboard(done) as address:
        texts = shown(f"{address}#hparams", lambda texts: names <= set(texts))
    assert names <= set(texts)
    assert f"Number of matching session groups: {len(names)}" in texts
    assert {"ablation/cell", "ablation/stage", "ablation/seeds", "axis/method", "rank", "final/acc", *scores} <= set(
        texts
    )


def test_changes_of_a_loaded_model_do_not_reach_the_cache(tiny_backbone: Path) -> None:
    config = BackboneConfig(source="local", path=str(tiny_backbone))
    location = locate(config)
    with process_cache():
        first = load_model(config, location)
        before = {name: p.clone() for name, p in first.state_dict().items()}
        for parameter in first.parameters():
            parameter.data.add_(1)
        second = load_model(config, location)
    for name, tensor in second.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert cached("x", 1, lambda: 1) == 1
    assert cached("x", 1, lambda: 2) == 2  # outside of process_cache() nothing is cached
    with process_cache():
        made = [cached("x", key, object, most=2) for key in (1, 2, 3, 1)]
    assert made[0] is not made[3]  # the oldest entry was removed


def test_runs_that_share_a_parser_have_the_settings_of_a_new_one(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smoa_lightning.training.cli.cached", cached)  # other tests share parsers without process_cache

    class OnlyParsed(FineTuneCLI):
        def instantiate_classes(self) -> None:
            pass

        def after_instantiate_classes(self) -> None:
            pass

        def _run_subcommand(self, subcommand: str) -> None:
            pass

    def parsed(*runs: Run) -> list[tuple[int, dict[str, Any]]]:
        made = [OnlyParsed(["fit", *run.arguments]) for run in runs]
        return [(id(cli.parser), cli.config["fit"].as_dict()) for cli in made]

    full, lora, smoa = list(study.final_runs())[::2]
    new, expected = zip(*parsed(full, lora, smoa), strict=True)
    with process_cache():
        parsers, settings = zip(*parsed(smoa, full, lora, smoa), strict=True)
    assert len({*new, *parsers}) == len(new) + 1
    assert list(settings) == [expected[2], *expected]


def test_peak_memory_is_that_of_the_run(tmp_path: Path) -> None:
    """The peak of an earlier run of the same process does not count."""
    reset_peak_memory()
    before = peak_memory_megabytes()
    block = torch.ones(200_000_000 // 4)
    assert peak_memory_megabytes() > before + 150
    del block
    reset_peak_memory()
    assert peak_memory_megabytes() < before + 100


# ------------------------------------------------------------------------------------------------------- ending early


class Recorder:
    """A fake trial that is pruned at a given number of scores."""

    def __init__(self, last: int) -> None:
        self.reported: list[tuple[int, float]] = []
        self.last = last

    def report(self, value: float, step: int) -> None:
        self.reported.append((step, value))

    def should_prune(self) -> bool:
        return len(self.reported) >= self.last


def test_a_trial_gets_its_scores_by_step_and_ends(study: Study, tmp_path: Path) -> None:
    run = study.final_run(study.cell("method=smoa"), 0)
    trial = Recorder(last=3)
    arguments = (*run.arguments, "--trainer.val_check_interval=2", "--trainer.max_epochs=3")
    changed = type(run)(**{**run.__dict__, "arguments": arguments})
    with pytest.raises(Pruned, match="pruned at step 6"):
        fit(changed, tmp_path / "run", {"cell": "c", "stage": "search"}, False, [TrialPruning(trial, "nll")])
    assert [step for step, _ in trial.reported] == [2, 4, 6]  # an epoch has 4 steps: 2 and 6 are in the middle
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert record["reason"] == "Pruned: pruned at step 6"
    events = EventAccumulator(str(tmp_path / "run")).Reload()
    logged = {event.step: event.value for event in events.Scalars(tag_of("selection/nll"))}
    assert dict(trial.reported) == pytest.approx(
        {step + 1: value for step, value in logged.items()}
    )  # logs count from 0
    values, _ = hparams(tmp_path / "run")
    assert values["ablation/cell"] == "c"


def test_a_metric_that_is_not_measured_is_named(study: Study, tmp_path: Path) -> None:
    run = study.final_run(study.cell("method=smoa"), 0)
    with pytest.raises(UserError, match=r"the search needs selection/bleu, but validation measures .*selection/nll"):
        fit(run, tmp_path / "run", {}, False, [TrialPruning(Recorder(9), "bleu")])


def one_cell(study: Study, tmp_path: Path, search: str) -> Study:
    """Return a small study of one cell, one seed and a search."""
    flags = study.cell("method=smoa").flags
    paths = {"backbone": flags["model.backbone.path"], "piqa": flags["data.path"], "experiments": EXPERIMENTS}
    (tmp_path / "search.yaml").write_text(STUDY.replace("seeds: 2", "seeds: 1").format(**paths) + search)
    one = f"{{method: [{{smoa: {{config: {EXPERIMENTS}/adapters/smoa_blocks.yaml, r: 4}}}}]}}"
    small = [("axes", one), ("baseline", "{method: smoa}"), ("trainer.val_check_interval", "1")]
    return load_study([tmp_path / "search.yaml"], [*small, ("data.limit_train_rows", "48")])


def test_a_study_with_a_pruner_ends_trials_early(study: Study, tmp_path: Path) -> None:
    """Optuna's threshold pruner with two rates: the trial with the rate that is too low ends at its first score."""
    text = "search: {parameters: {lr: {choices: [1.0e-3, 2.0]}}, sampler: grid, objective: nll, pruner: "
    text += "{name: threshold, upper: 5.57}}\n"  # the base model, which is random, has 5.575
    found = one_cell(study, tmp_path, text)
    with process_cache():
        work = Work(found, tmp_path / "out", open_storage(None, tmp_path / "out"), TOOLS, WorkerId.of(os.getpid()))
        work.until_done(poll=0.01)
    (search,) = json.loads((tmp_path / "out" / "trials.json").read_text())["searches"].values()
    by_rate = {t["parameters"]["model.optimizer.init_args.lr"]: t for t in search["trials"]}
    good, bad = by_rate[2.0], by_rate[1e-3]
    assert (good["state"], bad["state"]) == ("COMPLETE", "PRUNED")
    assert list(good["intermediate"]) == ["1", "2", "3"]
    assert list(bad["intermediate"]) == ["1"]
    assert bad["reason"] == "pruned at step 1"
    assert search["best"] == good["number"]
    record = json.loads(next((tmp_path / "out" / "runs").glob("*/record.json")).read_text())
    assert record["ablation"]["parameters"] == good["parameters"]
    entries = {path.parent for path in (tmp_path / "out").glob("*/*/events.out.tfevents.*")}
    assert {path.parent.name for path in entries} == {"runs", "search", "cells"}
    assert (
        len({tuple(sorted(hparams(path)[0])) for path in entries}) == 1
    )  # TensorBoard takes the columns from any of the runs


@pytest.mark.parametrize("rates", [[1.0e-3, 1.0e30], [1.0e29, 1.0e30]], ids=["one of two", "both"])
def test_a_trial_that_diverges_is_pruned_and_not_tried_again(study: Study, tmp_path: Path, rates: list[float]) -> None:
    """A rate that is too high is a result of the search. Without a single valid trial, the cell has failed."""
    text = f"search: {{parameters: {{lr: {{choices: {rates}}}}}, sampler: grid, objective: nll}}\n"
    found, out = one_cell(study, tmp_path, text), tmp_path / "out"
    with process_cache():
        work = Work(found, out, open_storage(None, out), TOOLS, WorkerId.of(os.getpid()))
        work.until_done(poll=0.01)
    (search,) = json.loads((out / "trials.json").read_text())["searches"].values()
    bad = [trial for trial in search["trials"] if trial["state"] == "PRUNED"]
    assert {trial["parameters"]["model.optimizer.init_args.lr"] for trial in bad} == {n for n in rates if n > 1}
    assert all(re.match("diverged: (the training loss is|.* the log-likelihood)", trial["reason"]) for trial in bad)
    attempts = work.status.searches["method=smoa"].ledger.attempts()
    assert len(attempts) == 2  # one for each trial
    assert not list(out.glob("search/*/checkpoints"))
    failures = [failure.reason for failure in work.status.failures()]
    if len(bad) == 1:
        assert failures == []
        assert len(list((out / "runs").glob("*/record.json"))) == 1
    else:
        (reason,) = failures
        assert reason.startswith("no trial was completed; trial 1: diverged: ")
        assert not (out / "runs").exists()
