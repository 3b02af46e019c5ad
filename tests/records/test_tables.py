"""Tables for the terminal."""

from __future__ import annotations

from smoa_lightning.records.tables import part_table, result_lines, result_table, text_table

ONE = {"name": "piqa", "source": "local", "primary": "acc", "tasks": {"piqa": ("likelihood", "acc")}}
TWO = {
    "name": "mixture",
    "source": "local",
    "primary": "nll",
    "tasks": {"piqa": ("likelihood", "acc"), "gsm8k": ("generation", "acc")},
}


def test_one_task():
    metrics = {"report/acc": 0.5, "report/acc_stderr": 0.025, "report/nll": 31.5, "report/num_items": 1838.0}
    (line,) = result_lines("after training", metrics, "report", ONE)
    header, row = result_table([line], bold=False).splitlines()
    assert header.split() == ["task", "protocol", "rows", "from", "n", "acc", "nll"]
    assert " ".join(row.split()) == "after training piqa likelihood local 1,838 *0.5000 ± 0.0250* 31.50"


def test_several_tasks_have_a_line_each_and_one_of_means():
    metrics = {"report/acc": 0.4, "report/num_items": 30.0, "report/piqa/acc": 0.6, "report/gsm8k/acc": 0.2}
    lines = result_lines("", metrics | {"report/gsm8k/unparsed_rate": 0.1}, "report", TWO)
    assert [(line.task, line.metrics["acc"]) for line in lines] == [("mean of 2", 0.4), ("piqa", 0.6), ("gsm8k", 0.2)]
    rows = result_table(lines, bold=False).splitlines()
    assert rows[2].split()[-1] == "-"
    assert rows[3].split()[-1] == "0.1000"


def test_the_primary_metric_is_bold_on_a_terminal():
    (line,) = result_lines("", {"report/acc": 0.5}, "report", ONE)
    assert "\033[1m0.5000\033[0m" in result_table([line], bold=True)
    assert "\033" not in result_table([line], bold=False)


def test_nothing_scored():
    assert result_lines("", {"base/acc": 0.5}, "report", ONE) == []


def test_parts_of_one_task_and_of_several():
    part = {"rows": 1200, "tokens": 9000, "target_tokens": 800, "length_mean": 7.5, "length_median": 7}
    part |= {"length_max": 31, "share_truncated": 0.25, "skipped_overlong": 3, "prefix_mismatches": 0}
    (_, row) = part_table({"train": part, "bad_rows": {"train": 0}}).splitlines()
    assert row.split() == ["train", "1,200", "9,000", "800", "7.5", "7", "31", "25.0%", "3", "0"]
    line = part_table({"train": part, "bad_rows": {"train": 0, "validation": 10}}).splitlines()[-1]
    assert line == "bad rows that were left out: 10 of validation"
    images = part_table({"train": part | {"unit": "images"}, "report": part | {"unit": "images", "rows": 1234}})
    assert images.split() == ["data", "images", "train", f"{part['rows']:,}", "report", "1,234"]  # no tokens
    rows = part_table({"piqa": {"train": part}, "boolq": {"train": part}}).splitlines()
    assert [row.split()[:2] for row in rows[1:]] == [["piqa", "train"], ["boolq", "train"]]


def test_a_table_is_as_wide_as_its_content(monkeypatch):
    """Files and pipes have no width, and a name may look like rich's own marks."""
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("FORCE_COLOR", "1")
    name = "a name of [red]many[/] words :smile: " * 5
    for terminal in (False, True):
        header, row = text_table(["name", "value"], [[name, "1.0"]], words=1, terminal=terminal).splitlines()
        assert row == f"{name}    1.0"
        assert header.split() == ["name", "value"]
