"""Files of a run without checksums of ours: no command reads them, or their own checksums hide what is damaged."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest
import yaml
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator

from smoa_lightning.__main__ import main

CHECKED = {
    *("record.json", "items.jsonl", "base_items.jsonl", "checkpoints/step/best.ckpt", "checkpoints/step/last.ckpt"),
    *(f"{place}/{name}" for place in ("adapter/best", "adapter/last", "checkpoints/step/adapter/best",
      "checkpoints/step/adapter/last") for name in ("adapter_config.json", "adapter_model.safetensors",
      "smoa_lightning.json")),
    "checkpoints/step/files.json",
}  # fmt: skip
UNREAD = {"config.yaml", ".lock", *(f"rank.{end}" for end in ("json", "md", "png", "svg")),
          *(f"{place}/README.md" for place in ("adapter/best", "adapter/last", "checkpoints/step/adapter/best",
            "checkpoints/step/adapter/last"))}  # fmt: skip
EVENTS = "events.out.tfevents"


def general(name: str) -> str:
    """Return the name of a file without numbers of steps and processes."""
    first, *rest = name.split("/")
    if first == "checkpoints" and rest[0].startswith("step_"):
        return "/".join([first, "step", *rest[1:]])
    return EVENTS if name.startswith(EVENTS) else name


def files(run: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for file in run.rglob("*"):
        if file.is_file() and not file.is_symlink():
            found.setdefault(general(file.relative_to(run).as_posix()), []).append(file)
    return found


@pytest.fixture(scope="module")
def run(finished: Path) -> Path:
    """A finished run with the files of ``rank``."""
    assert main(["rank", str(finished)]) == 0
    return finished


def test_a_run_leaves_no_other_files(run: Path) -> None:
    """A new kind of file needs a checksum and a test, or a place in this list of files that nothing reads."""
    assert files(run).keys() == CHECKED | UNREAD | {EVENTS}


def test_no_command_reads_files_without_checksums(
    run: Path, short_arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def outcome(folder: Path) -> list[str]:
        checkpoint = str(folder / "checkpoints/best.ckpt")
        capsys.readouterr()
        for command in (
            ["test", *short_arguments, "--ckpt_path", checkpoint, "--run.root", str(tmp_path)],
            ["generate", str(folder), "--prompt", "Boil", "--max_new_tokens", "4"],
            ["rank", str(folder)],
        ):
            assert main(command) == 0, command
        shown = capsys.readouterr().out.replace(str(folder), "")
        return [line for line in shown.splitlines() if "version_" not in line]

    shutil.copytree(run, tmp_path / "damaged", symlinks=True)
    for name, found in files(tmp_path / "damaged").items():
        for file in found if name in UNREAD | {EVENTS} else []:
            file.write_bytes(random.Random(0).randbytes(200))
    assert outcome(tmp_path / "damaged") == outcome(run)


def points(folder: Path) -> set[tuple[str, int, bytes]]:
    log = EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()
    return {
        (tag, e.step, e.tensor_proto.SerializeToString()) for tag in log.Tags()["tensors"] for e in log.Tensors(tag)
    }


def test_a_changed_byte_of_the_event_file_adds_no_point_and_changes_none(run: Path, tmp_path: Path) -> None:
    """Each record of the file has a checksum of TensorBoard; its reader leaves out the damaged record and the rest."""
    shutil.copytree(run, tmp_path / "run", symlinks=True)
    (file,) = files(tmp_path / "run")[EVENTS]
    content, expected = file.read_bytes(), points(run)
    assert len(expected) > 20
    fewer = 0
    for place in random.Random(0).sample(range(len(content)), 50):
        file.write_bytes(content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :])
        found = points(tmp_path / "run")
        assert found <= expected
        fewer += found < expected
    assert fewer > 40


def test_the_record_repeats_what_config_yaml_says(run: Path) -> None:
    """A damaged ``config.yaml`` can be made again from the record, which has a checksum."""
    written = yaml.safe_load((run / "config.yaml").read_text())
    recorded = json.loads((run / "record.json").read_text())["config"]
    assert {key: recorded[key] for key in written} == written
