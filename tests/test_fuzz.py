"""Random settings and random rows: each is taken, or refused with one sentence; never a traceback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from smoa_lightning import embedded
from smoa_lightning.common.errors import UserError
from smoa_lightning.configuration import check_arguments
from smoa_lightning.configuration.settings import CLASS_SETTINGS, Setting, class_group, groups
from smoa_lightning.data.rows.readers import read_file
from smoa_lightning.data.rows.row_table import write_rows
from smoa_lightning.data.tasks import TASKS
from smoa_lightning.training.cli import FineTuneCLI

FEW = {"deadline": None, "suppress_health_check": list(HealthCheck), "database": None, "derandomize": True}
FEW |= {"phases": (Phase.explicit, Phase.generate)}  # a failure is shown as it was found

NUMBERS = [0, 1, -1, 2, 7, 2**31, 2**32, 2**63, 10**30, -(10**30), 10**4000]
FLOATS = [0.0, -0.0, 0.5, 1.0, 1.5, -1.0, 1e-300, 1e300, float("inf"), float("-inf"), float("nan")]
TEXTS = ["", " ", "null", "true", "yes", "1e3", "0x10", "é😀", "\x00", "\ud800", "[", "{", "'", "a: b", "../x", "~"]
TEXTS += ["=", "2020-13-01", "!!python/name:os.system", "os.system", "auto", "-1", ".nan", "a" * 5000, "[" * 3000]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(NUMBERS),
    st.integers(-100, 100),
    st.sampled_from(FLOATS),
    st.sampled_from(TEXTS),
    st.text(max_size=8),
)
JUNK = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)),
    max_leaves=6,
)


def text_of(value: Any) -> str:
    """Return a value as YAML or JSON writes it."""
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value)
    except ValueError:  # a number of more than 4,300 digits
        return "1" + 5000 * "0"


# ---------------------------------------------------------------------------------------------------------- settings

OPEN = {"data.path", "trainer.default_root_dir"}  # any text is valid
SKIPPED = {"config", "ckpt_path", "base", *OPEN}
SETTINGS = {s.key: s for group in groups("fit") for s in group.settings if s.key not in SKIPPED}
CLASSES = {
    "model.adapter": [
        "smoa_lightning.adapters.SMoAConfig",
        *(f"peft.{n}Config" for n in ("Lora", "IA3", "PrefixTuning")),
    ],
    "model.optimizer": ["torch.optim.AdamW", "torch.optim.SGD", "torch.optim.LBFGS"],
    "model.prompt": [f"peft.{n}Config" for n in ("PromptTuning", "PromptEncoder", "PrefixTuning")],
}


def fitting(setting: Setting) -> st.SearchStrategy[Any]:
    """Return values of the right type, also at the ends of their range and beyond."""
    kinds: list[st.SearchStrategy[Any]] = [st.none()] if setting.type.takes_null else []
    if setting.type.values:
        kinds.append(st.sampled_from(setting.type.values))
    if "bool" in setting.type.plain:
        kinds.append(st.booleans())
    if "int" in setting.type.plain:
        kinds += [st.sampled_from(NUMBERS), st.integers(0, 20)]
    if "float" in setting.type.plain:
        kinds += [st.sampled_from(FLOATS), st.floats(0, 1)]
    return st.one_of(kinds) if kinds else JUNK


@st.composite
def configurations(draw: st.DrawFn) -> list[tuple[str, Any]]:
    chosen: list[tuple[str, Any]] = []
    for _ in range(draw(st.integers(1, 3))):
        if draw(st.integers(0, 3)):
            setting = draw(st.sampled_from(list(SETTINGS.values())))
            chosen.append((setting.key, draw(fitting(setting) if draw(st.integers(0, 4)) else JUNK)))
            continue
        owner = draw(st.sampled_from(CLASS_SETTINGS))
        path = draw(st.sampled_from(CLASSES[owner]))
        group = class_group(owner, path)
        assert group is not None
        chosen.append((owner, path))
        setting = draw(st.sampled_from(group.settings))
        chosen.append((setting.key, draw(fitting(setting) if draw(st.integers(0, 4)) else JUNK)))
    return chosen


def take(chosen: list[tuple[str, Any]], as_file: Path | None) -> str:
    """Give settings to the early check and to the real command line; return ``taken`` or the sentence."""
    if as_file is None:
        arguments = [f"--{key}={text_of(value)}" for key, value in chosen]
    else:
        nested = {key: value for key, value in chosen if key not in CLASS_SETTINGS}
        try:
            as_file.write_text(yaml.safe_dump(nested), encoding="utf-8")
        except (ValueError, UnicodeEncodeError):
            return "not a file"
        arguments = [f"--{key}={value}" for key, value in chosen if key in CLASS_SETTINGS]
        arguments += ["--config", str(as_file)]
    result = "taken"
    for step in (lambda: check_arguments("fit", arguments), lambda: construct(arguments)):
        try:
            step()
        except UserError as error:
            result = str(error)
    assert result.strip()
    assert len(result) < 8000
    return result


def construct(arguments: list[str]) -> None:
    """Build model, data and trainer as ``fit`` does, without a run."""
    FineTuneCLI(["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", *arguments], run=False)


def fuzz_settings(count: int, folder: Path) -> dict[str, int]:
    counts = {"taken": 0, "refused": 0}

    @settings(max_examples=count, **FEW)  # type: ignore[arg-type]
    @given(chosen=configurations(), as_file=st.booleans())
    def check(chosen: list[tuple[str, Any]], as_file: bool) -> None:
        counts["taken" if take(chosen, folder / "a.yaml" if as_file else None) == "taken" else "refused"] += 1

    check()
    return counts


@pytest.mark.filterwarnings("ignore")
def test_random_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fuzz_settings(40, tmp_path)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_many_random_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    counts = fuzz_settings(1000, tmp_path)
    print(counts)
    assert counts["refused"] > 0
    assert counts["taken"] > 0


# --------------------------------------------------------------------------------------------------------------- rows

RAW = {name: embedded.rows(name, "train")[:4] for name in embedded.TASKS}


@st.composite
def lines_of(draw: st.DrawFn) -> tuple[str, str]:
    """Draw a task and the text of a file with one to three rows, partly damaged."""
    name = draw(st.sampled_from(sorted(TASKS)))
    lines = []
    for _ in range(draw(st.integers(1, 3))):
        row: Any = dict(draw(st.sampled_from(RAW[name]))) if name in RAW else {}
        for field in TASKS[name].schema:
            kind = draw(st.integers(0, 4 if name in RAW else 1))
            if kind == 0:
                row[field] = draw(JUNK)
            elif kind == 1 and name not in RAW:
                row[field] = draw(st.sampled_from(["text", ["a", "b"], 0, [{"role": "user", "content": "a"}]]))
        row |= draw(st.dictionaries(st.text(max_size=5), JUNK, max_size=1))
        lines.append(text_of(row if draw(st.integers(0, 9)) else draw(JUNK)))
        if not draw(st.integers(0, 14)):
            lines.append(draw(st.sampled_from(["[" * 100_000, "1" * 5000, '{"a": ' * 5000, "{", "nan", '"\\ud800"'])))
    return name, "\n".join(lines)


class Rows(list[tuple[str, int]]):
    def add(self, *row: Any) -> None:
        self.append(row)


def fuzz_rows(count: int, folder: Path) -> dict[str, int]:
    counts = {"taken": 0, "refused": 0}

    @settings(max_examples=count, **FEW)  # type: ignore[arg-type]
    @given(drawn=lines_of(), ending=st.sampled_from([".jsonl", ".json", ".csv"]), skip=st.booleans())
    def check(drawn: tuple[str, str], ending: str, skip: bool) -> None:
        (name, text), file, rows = drawn, folder / f"rows{ending}", Rows()
        file.write_bytes(text.encode("utf-8", "surrogatepass"))
        task, message = TASKS[name], f"{file.name}: taken"
        try:
            write_rows(rows, task, read_file(str(file), task), skip)  # type: ignore[arg-type]
            for row, _ in rows:
                for protocol in task.protocols:
                    protocol.example(json.loads(row))
        except UserError as error:
            message = str(error)
        counts["taken" if message.endswith(": taken") else "refused"] += 1
        assert file.name in message
        assert len(message) < 8000

    check()
    return counts


def test_random_rows(tmp_path: Path) -> None:
    fuzz_rows(100, tmp_path)


@pytest.mark.slow
def test_many_random_rows(tmp_path: Path) -> None:
    counts = fuzz_rows(1000, tmp_path)
    print(counts)
    assert counts["refused"] > 0
    assert counts["taken"] > 0
