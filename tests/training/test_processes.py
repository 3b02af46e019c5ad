"""Several processes train as one process with batches as large as all of theirs: the same losses in every step."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from lightning.pytorch.accelerators import AcceleratorRegistry, CPUAccelerator

from smoa_lightning.__main__ import main
from smoa_lightning.common.errors import UserError
from smoa_lightning.common.machine import process_state
from smoa_lightning.embedded import backbone_folder, rows
from smoa_lightning.training.processes import ADVICE, check_accelerator

from . import losses_of_processes

SLOW = pytest.mark.slow
EXPERIMENTS = Path(__file__).parents[2] / "experiments"
SCRIPT = Path(losses_of_processes.__file__)
# Without dropout: the processes draw their own masks.
SHORT = ["smoa_blocks"]
STRATEGIES = sorted(p.stem for p in EXPERIMENTS.glob("adapters/*.yaml") if p.stem != "frozen")
TOLERANCE = 1e-6
LARGER = {"surm_adapter": 3e-6}  # measured 1.3e-6 in one of 19 steps: its learning rate 0.02 magnifies rounding


def folder_of_rows(folder: Path, task: str, count: int) -> Path:
    folder.mkdir(parents=True)
    for split, number in (("train", count), ("validation", 8)):
        lines = [json.dumps(row) for row in rows(task, split)[:number]]
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def arguments(adapter: str, backbone: Path, data: list[str]) -> list[str]:
    dropouts = {"lora": "lora_dropout", "dora": "lora_dropout"}
    return [
        *("--config", str(EXPERIMENTS / "piqa.yaml"), "--config", str(EXPERIMENTS / "adapters" / f"{adapter}.yaml")),
        *("--model.backbone.source", "local", "--model.backbone.path", str(backbone)),
        *([f"--model.adapter.{dropouts[adapter]}", "0"] if adapter in dropouts else []),
        *("--data.source", "local", "--data.selection_rows", "0", *data, "--trainer.max_epochs", "1"),
        *("--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false", "--run.score_base", "false"),
        *("--run.score_report", "false", "--rank_monitor.max_layers", "0", "--forgetting.max_documents", "1"),
        *("--trainer.logger", "false", "--trainer.log_every_n_steps", "1"),
    ]


def cases(names: list[str], backbone: Path, folder: Path) -> dict[str, list[str]]:
    """49 rows in batches of 8: one process of two has no row in the last batch."""
    odd = ["--data.path", str(folder_of_rows(folder / "odd", "piqa", 49))]
    even = ["--data.path", str(folder_of_rows(folder / "even", "piqa", 32))]
    both = folder / "both"
    for task, count in (("piqa", 21), ("boolq", 14)):
        folder_of_rows(both / task, task, count)
    found = {name: arguments(name, backbone, odd) for name in names}
    blocks = "smoa_blocks"
    found["even"] = arguments(blocks, backbone, even)
    found["accumulated"] = [*arguments(blocks, backbone, odd), "--trainer.accumulate_grad_batches", "3"]
    found["packed"] = [*arguments(blocks, backbone, odd), "--data.packing", "true", "--data.max_length", "160"]
    mixture = ["--data.path", str(both), "--data.task", "mixture", "--data.mixture", "{piqa: 1, boolq: 2}"]
    found["mixture_workers"] = [*arguments(blocks, backbone, mixture), "--data.num_workers", "1"]
    return found


def free_port() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


def losses(
    configurations: dict[str, list[str]], folder: Path, processes: int, stop_after: int = 0, strategy: str = "ddp"
) -> dict[str, list[float]]:
    """Return the losses of each step of each configuration; several processes are started as torchrun starts them.

    A single process is this one. With ``stop_after``, the processes are killed after this number of steps.
    """
    folder.mkdir(exist_ok=True)
    several = ["--trainer.strategy", strategy] if processes > 1 else []
    size = ["--data.batch_size", str(8 // processes), "--trainer.devices", str(processes), *several]
    (folder / "cases.json").write_text(json.dumps({name: [*own, *size] for name, own in configurations.items()}))
    if processes == 1:
        torch.set_num_threads(1)
        losses_of_processes.main(folder / "cases.json", folder / "losses.json")
        return dict(json.loads((folder / "losses.json").read_text()))
    launched = []
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    environment |= {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes), "GROUP_RANK": "0"}
    environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "TORCHELASTIC_RUN_ID": "test"}
    for rank in range(processes):
        own = environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        command = [sys.executable, str(SCRIPT), str(folder / "cases.json"), str(folder / "losses.json")]
        command.append(str(stop_after))
        with (folder / f"log-{rank}.txt").open("wb") as log:
            launched.append(subprocess.Popen(command, env=own, stdout=log, stderr=log))
    statuses = [process.wait(1200) for process in launched]
    assert statuses == [9 if stop_after else 0] * processes, (folder / "log-0.txt").read_text()[-3000:]
    found: dict[str, list[float]] = json.loads((folder / "losses.json").read_text())
    return found


def largest_differences(names: list[str], backbone: Path, folder: Path, processes: int) -> dict[str, float]:
    """Return the largest difference of losses of each configuration, over all its steps."""
    made = cases(names, backbone, folder / "rows")
    one, several = (losses(made, folder / str(count), count) for count in (1, processes))
    assert {name: len(own) for name, own in several.items()} == {name: len(own) for name, own in one.items()}
    assert [len(one[name]) for name in ("even", "accumulated")] == [4, 3]
    return {n: max(abs(a - b) for a, b in zip(one[n], several[n], strict=True)) for n in made}


def test_two_processes_have_the_losses_of_one(tmp_path: Path) -> None:
    found = largest_differences(SHORT, backbone_folder(), tmp_path, 2)
    assert {name: value for name, value in found.items() if value > TOLERANCE} == {}


@pytest.mark.slow
def test_every_strategy_in_two_processes(tmp_path: Path) -> None:
    found = largest_differences(STRATEGIES, backbone_folder(), tmp_path, 2)
    for name, value in found.items():
        print(f"{name:20} {value:.1e}")
    assert {name: value for name, value in found.items() if value > LARGER.get(name, TOLERANCE)} == {}


def command(rows: Path, root: Path, *more: str) -> list[str]:
    own = arguments("lora", backbone_folder(), ["--data.path", str(rows), "--data.batch_size", "4"])
    own += ["--trainer.strategy", "ddp", "--trainer.devices", "2", "--run.root", str(root)]
    return ["fit", *own, *more]


ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


@SLOW
def test_all_processes_of_torchrun_use_one_folder(tmp_path: Path) -> None:
    rows = folder_of_rows(tmp_path / "rows", "piqa", 16)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={free_port()}"]
    for version in range(2):
        whole = [*torchrun, "-m", "smoa_lightning", *command(rows, tmp_path / "runs")]
        done = subprocess.run(
            whole, capture_output=True, text=True, env=os.environ | ENVIRONMENT, timeout=500, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        (name,) = (tmp_path / "runs").iterdir()
        assert sorted(path.name for path in name.iterdir()) == [f"version_{number}" for number in range(version + 1)]


@pytest.mark.parametrize(
    ("rank", "strategy"),
    [pytest.param(0, "ddp", marks=SLOW), (1, "ddp"), pytest.param(1, "fsdp2", marks=SLOW)],
)
def test_a_killed_process_ends_the_run_with_one_sentence(tmp_path: Path, rank: int, strategy: str) -> None:
    rows, root = folder_of_rows(tmp_path / "rows", "piqa", 16), tmp_path / "runs"
    more = ["--trainer.max_epochs", "1000", "--trainer.strategy", strategy]
    whole = [sys.executable, "-m", "smoa_lightning", *command(rows, root, *more)]
    run = subprocess.Popen(
        whole, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | ENVIRONMENT
    )
    limit = time.monotonic() + 400
    while not list(root.glob("*/version_0/checkpoints/current/last.ckpt")):
        assert run.poll() is None, run.communicate()
        assert time.monotonic() < limit
        time.sleep(0.2)
    (other,) = (int(pid) for pid in Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split())
    os.kill(other if rank else run.pid, signal.SIGKILL)
    _, errors = run.communicate(timeout=60)  # both have ended: both hold the pipe
    assert run.returncode == (2 if rank else -signal.SIGKILL)
    assert (process_state(other) or ("Z", ""))[0] == "Z"
    if rank:
        said = [line for line in errors.splitlines() if line.startswith("smoa_lightning: ")]
        assert said == [f"smoa_lightning: process 1 of the run was ended by signal 9: {ADVICE}"]
        assert "Traceback" not in errors
        (record,) = root.glob("*/version_0/record.json")
        assert "signal 9" in json.loads(record.read_text())["reason"]


@pytest.mark.parametrize(
    "strategy",
    ["fsdp", "fsdp_cpu_offload", "deepspeed_stage_2", "lightning.pytorch.strategies.FSDPStrategy"],
)
def test_strategies_that_shard_are_refused_before_any_work(
    strategy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = folder_of_rows(tmp_path / "rows", "piqa", 16)
    assert main([*command(rows, tmp_path / "runs"), "--trainer.strategy", strategy]) == 2
    error = capsys.readouterr().err
    assert f"trainer.strategy: '{strategy}' is not supported, since" in error
    assert "Traceback" not in error
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_resumed_run_with_dropout_has_the_losses_of_an_uninterrupted_one(tmp_path: Path) -> None:
    """The processes have parts of different sizes, so their random states differ."""
    odd = ["--data.path", str(folder_of_rows(tmp_path / "odd", "piqa", 45))]
    own = [*arguments("lora", backbone_folder(), odd), "--model.adapter.lora_dropout", "0.3"]
    own += ["--checkpoint.every_n_steps", "1", "--trainer.max_epochs", "2"]
    whole = losses({"run": own}, tmp_path / "whole", 2)["run"]
    folder = tmp_path / "parts"
    first = losses({"run": own}, folder, 2, stop_after=8)["run"]
    second = losses({"run": own}, folder, 2)["run"]
    assert len(first) == 8
    assert [*first, *second] == whole


@pytest.mark.parametrize("chosen", ["gpu", "cuda", "mps", "tpu", "cpuu"])
def test_an_accelerator_that_is_not_there_is_refused(chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in set(AcceleratorRegistry.available_accelerators()) - {"cpu"}:
        monkeypatch.setattr(AcceleratorRegistry[name]["accelerator"], "is_available", lambda: False)
    with pytest.raises(UserError) as error:
        check_accelerator(chosen)
    sentence = f"trainer.accelerator is {chosen!r}, which this machine does not have: set it to cpu or auto"
    assert str(error.value) == sentence
    for present in ("cpu", "auto", CPUAccelerator()):
        check_accelerator(present)


def test_a_gpu_is_the_accelerator_of_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in AcceleratorRegistry.available_accelerators():
        here = name in ("cpu", "cuda")
        monkeypatch.setattr(AcceleratorRegistry[name]["accelerator"], "is_available", lambda here=here: here)
    check_accelerator("gpu")
    with pytest.raises(UserError, match="'tpu', which this machine does not have: set it to cpu, cuda, gpu or auto"):
        check_accelerator("tpu")
