"""A run that is killed at any file operation and started again ends as if nothing had happened."""

from __future__ import annotations

import json
import random
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

from smoa_lightning.records.tensorboard_tags import tag_of
from tests.training.file_operations import HALF, REMOVAL
from tests.training.kill_server import server

TIMED = (tag_of("cost/"), "hp_metric")
# 20 batches an epoch: validation is due at steps at which a resume point would be due as well
DEFAULT = ["--checkpoint.every_n_steps", "5", "--trainer.max_epochs", "2", "--data.limit_train_rows", "120"]
VARIANTS = {
    "plain": DEFAULT,
    "dropout_accumulation": [
        *DEFAULT,
        *("--trainer.accumulate_grad_batches", "2", "--model.adapter.dropout", "0.2"),
        *("--trainer.val_check_interval", "3"),
    ],
    "packing": [*DEFAULT, "--data.packing", "true", "--data.max_length", "512"],
    "adalora": [
        *(*DEFAULT, "--model.adapter", "null", "--model.adapter", "smoa_lightning.adapters.adalora.AdaLoraConfig"),
        *("--model.adapter.init_r", "4", "--model.adapter.target_r", "2", "--model.adapter.deltaT", "1"),
        *("--model.adapter.tinit", "0.1", "--model.adapter.tfinal", "0.5"),
    ],
    "epochs_without_validation": [*DEFAULT, "--trainer.check_val_every_n_epoch", "2"],
}


def tags(log: EventAccumulator) -> list[str]:
    return [tag for tag in log.Tags()["tensors"] if not tag.startswith(TIMED)]


def result(root: Path) -> dict[str, Any]:
    """Return everything that a run measured or trained, without times."""
    run = min(root.glob("*/version_*"))  # after a finished run, the same command begins a new version
    record = json.loads((run / "record.json").read_text())
    log = EventAccumulator(str(run), size_guidance={"tensors": 0}).Reload()  # what TensorBoard's page shows
    points = {tag: [(e.step, make_ndarray(e.tensor_proto).tolist()) for e in log.Tensors(tag)] for tag in tags(log)}
    return {
        "status": record["status"],
        "metrics": {k: v for k, v in record["metrics"].items() if not k.startswith("cost/")},
        "best": record["best"],
        "points": points,
        "items": [(run / name).read_text() for name in ("base_items.jsonl", "items.jsonl")],
        "adapters": {
            name: {k: v.tolist() for k, v in load_file(run / "adapter" / name / "adapter_model.safetensors").items()}
            for name in ("best", "last")
        },
        "leftovers": [str(path) for path in run.rglob("*") if path.suffix in (".tmp", ".old")],
        "linked": [path.is_symlink() for path in ((run / "adapter" / name) for name in ("best", "last"))],
    }


def differences(expected: dict[str, Any], found: dict[str, Any]) -> list[str]:
    lines = []
    for key in expected.keys() | found.keys():
        old, new = expected.get(key), found.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            lines += [f"{key}: {line}" for line in differences(old, new)]
        elif old != new:
            lines.append(f"{key}: {str(old)[-200:]} became {str(new)[-200:]}")
    return lines


def kill_and_compare(arguments: list[str], folder: Path, count: int, kinds: tuple[str, ...] = ()) -> Counter[str]:
    """Compare runs that are killed at ``count`` operations with an uninterrupted run; return the kills of each kind.

    With ``kinds``, only operations of these kinds are chosen.
    """
    arguments = ["fit", *arguments]
    wrong: list[tuple[str, Any]] = []
    killed: Counter[str] = Counter()
    with server(folder) as do:
        whole = do({"arguments": arguments, "root": str(folder / "whole"), "operations": [0], "finish": 0})
        assert whole["statuses"] == [0], (folder / "whole.log").read_text()[-2000:]
        operations = json.loads((folder / "operations.json").read_text())
        expected = result(folder / "whole")
        numbers = [number for number, kind in enumerate(operations, start=1) if not kinds or kind in kinds]
        chosen = sorted(random.Random(0).sample(numbers, min(count, len(numbers))))
        for number in chosen:
            root = folder / f"kill{number}"
            job = do({"arguments": arguments, "root": str(root), "operations": [number], "finish": 1})
            assert job["statuses"] in ([-9], [0]), job
            killed[operations[number - 1]] += job["statuses"] == [-9]
            if job["final"] != 0:
                wrong.append((root.name, (folder / f"{root.name}.log").read_text()[-1500:]))
            elif (found := result(root)) != expected:
                wrong.append((root.name, differences(expected, found)))
            else:
                shutil.rmtree(root)
    assert not wrong, f"{len(wrong)} of {len(chosen)} kills: {wrong[:3]}"
    assert killed.total() >= 0.9 * len(chosen), killed
    return killed


def arguments_of(tiny_arguments: list[str], variant: str) -> list[str]:
    return [*tiny_arguments[:-2], "--trainer.log_every_n_steps", "2", *VARIANTS[variant]]


def test_kills_at_a_few_operations(tiny_arguments: list[str], tmp_path: Path) -> None:
    assert kill_and_compare(arguments_of(tiny_arguments, "plain"), tmp_path, 2).total() == 2


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_kills_at_many_operations(variant: str, tiny_arguments: list[str], tmp_path: Path) -> None:
    count = 100 if variant == "plain" else 30
    print(kill_and_compare(arguments_of(tiny_arguments, variant), tmp_path, count))


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["plain", "dropout_accumulation"])
@pytest.mark.parametrize("kinds", [("os.symlink", "os.link", "os.rename"), (REMOVAL,), (HALF,)])
def test_kills_at_links_removals_and_half_files(
    kinds: tuple[str, ...], variant: str, tiny_arguments: list[str], tmp_path: Path
) -> None:
    count = 25 if variant == "plain" else 10
    print(kill_and_compare(arguments_of(tiny_arguments, variant), tmp_path, count, kinds))
