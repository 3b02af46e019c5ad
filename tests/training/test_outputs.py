"""What runs and evaluations print and write, beside the scores themselves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import sacrebleu

from smoa_lightning.__main__ import main

from ..data.made_rows import write_folder
from ..runs import only_run


def frozen(tiny_arguments: list[str]) -> list[str]:
    """Return the flags without a strategy, for the base model."""
    rank = tiny_arguments.index("--model.adapter.r")
    left = [*tiny_arguments[:rank], *tiny_arguments[rank + 2 :]]
    return [*left, "--model.frozen", "true", "--model.adapter", "null"]


@pytest.mark.parametrize(("subcommand", "part"), [("test", "report"), ("validate", "selection")])
def test_an_evaluation_prints_its_table(
    subcommand: str, part: str, tiny_arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([subcommand, *frozen(tiny_arguments), "--run.folder", str(tmp_path / "e")]) == 0
    metrics = json.loads((tmp_path / "e" / "evaluation.json").read_text())["metrics"]
    lines = capsys.readouterr().out.splitlines()
    (number,) = [n for n, line in enumerate(lines) if line.split()[:5] == ["task", "protocol", "rows", "from", "n"]]
    count, value, error = (metrics[f"{part}/{name}"] for name in ("num_items", "acc", "acc_stderr"))
    assert count == (24 if part == "report" else 16)
    shown = f"piqa likelihood local {count:.0f} *{value:.4f} ± {error:.4f}* "
    assert f"{' '.join(lines[number + 1].split())} ".startswith(shown)


def test_predictions_of_replies_have_context_reply_and_reference(tiny_arguments: list[str], tmp_path: Path) -> None:
    write_folder(tmp_path / "rows", "gsm8k")
    flags = ["--data.task", "gsm8k", "--data.path", str(tmp_path / "rows"), "--data.max_new_tokens", "5"]
    flags += ["--data.selection_rows", "2", "--run.folder", str(tmp_path / "p")]
    assert main(["predict", *frozen(tiny_arguments), *flags]) == 0
    found = [json.loads(line) for line in (tmp_path / "p" / "predictions.jsonl").read_text().splitlines()]
    rows = [json.loads(line) for line in (tmp_path / "rows" / "test.jsonl").read_text().splitlines()]
    assert [item["row"] for item in found] == list(range(len(rows)))
    for item, row in zip(found, rows, strict=True):
        assert row["question"] in item["context"]
        assert row["answer"].split("####")[0].strip() not in item["context"]  # what is to be written is not shown
        assert item["reference"].split("####")[-1].strip() == row["answer"].split("####")[-1].strip()
        assert (
            len(item["reply"].encode()) <= 3 * 5
        )  # a token is a byte, and one that is none of UTF-8 is shown as three
    assert any(item["reply"] for item in found)


def test_the_signatures_of_metrics_of_texts_stand_in_the_record(tiny_arguments: list[str], tmp_path: Path) -> None:
    write_folder(tmp_path / "rows", "daily_dialog")
    flags = ["--data.task", "daily_dialog", "--data.path", str(tmp_path / "rows"), "--data.max_new_tokens", "3"]
    assert main(["fit", *frozen(tiny_arguments), *flags, "--data.selection_rows", "2"]) == 0
    record = json.loads((only_run(tmp_path / "runs") / "record.json").read_text())
    assert 0 <= record["metrics"]["report/bleu"] <= 100
    assert set(record["metric_signatures"]) == {"bleu", "chrf"}
    for signature in record["metric_signatures"].values():
        assert signature.endswith(f"version:{sacrebleu.__version__}")


def test_a_length_beyond_the_positions_of_the_backbone_is_told(
    tiny_arguments: list[str], tiny_backbone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    positions = json.loads((tiny_backbone / "config.json").read_text())["max_position_embeddings"]
    told = f"data.max_length {positions + 1} is more than the backbone's {positions} positions; {positions} is used"
    flags = ["test", *frozen(tiny_arguments), "--run.folder", str(tmp_path / "e"), "--data.max_length"]
    assert main([*flags, str(positions)]) == 0
    assert "positions" not in capsys.readouterr().out
    assert main([*flags, str(positions + 1)]) == 0
    assert told in capsys.readouterr().out.splitlines()


def test_settings_of_streaming_are_ignored_with_a_sentence(
    tiny_arguments: list[str], piqa_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (piqa_folder / "train.jsonl").read_text().splitlines()
    bad = {**json.loads(lines[0]), "sol1": ""}
    path = tmp_path / "train.jsonl"
    path.write_text("\n".join([*lines[:2], json.dumps(bad), "[]", *lines[2:]]))
    flags = ["--data.path", str(path), "--data.streaming", "true", "--data.bad_rows", "skip"]
    flags += ["--data.stream_buffer_rows", "40", "--data.selection_rows", "4"]
    flags += ["--trainer.log_every_n_steps", "1", "--trainer.max_steps", "3"]
    assert main(["fit", *tiny_arguments, *flags]) == 0
    told = "ignored, since files of any size are read from disk: data.streaming, data.stream_buffer_rows"
    assert told in capsys.readouterr().out.splitlines()
    record = json.loads((only_run(tmp_path / "runs") / "record.json").read_text())
    assert record["config"]["data"]["streaming"] is True
    parts = record["data"]["parts"]
    assert parts["bad_rows"] == {"train": 2}
    assert parts["selection"]["rows"] == 4
    assert parts["train"]["rows"] == len(lines) - 4


def test_scores_by_published_rules_are_labelled_everywhere(
    tiny_arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    flags = ["--data.rules", "llm_adapters", "--data.limit_report_rows", "3", "--trainer.max_steps", "1"]
    assert main(["fit", *tiny_arguments, *flags, "--run.folder", str(run), "--forgetting.text", "null"]) == 0
    shown = capsys.readouterr()
    assert "Published rules llm_adapters: replies, answers and beams" in shown.out
    assert not any(line in shown.err for line in ("Seed set to", "Restoring states", "Loaded model", "`Trainer.fit`"))
    record = json.loads((run / "record.json").read_text())
    assert (record["data"]["protocol"], record["data"]["rules"]) == ("generation", "llm_adapters")
    assert {"report/acc", "report/unparsed_rate"} <= record["metrics"].keys()
    assert "selection/acc" not in record["metrics"]  # the loss selects
    assert main(["report", str(run)]) == 0
    assert "Published rules llm_adapters" in (run / "report" / "run.html").read_text(encoding="utf-8")
