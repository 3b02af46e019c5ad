"""The commands of the README and of the tutorials run as printed; those of the other documents are parsed.

``pytest -m slow tests/documents`` installs the wheel in a clean environment and runs every block of a page in its
order, in one folder, with small limits. The comment before a block says why it is not run: it needs the hub, a GPU, a
server or another program.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from smoa_lightning.__main__ import main
from smoa_lightning.commands import COMMANDS
from smoa_lightning.commands.params_flags import split_flags
from smoa_lightning.configuration.check import check_arguments
from smoa_lightning.configuration.settings import COMMANDS as WITH_SETTINGS
from tests.wheel import clean_environment, variables

from .blocks import Block, arguments, blocks
from .test_own_method import forget_the_method

ROOT = Path(__file__).parents[2]
RUN = [ROOT / "README.md", *(ROOT / "docs" / name for name in ("quickstart.md", "commands.md")),
       *sorted((ROOT / "docs" / "tutorials").glob("*.md"))]  # fmt: skip
PARSED = [
    *RUN,
    *sorted(file for file in (ROOT / "docs").glob("*.md") if file not in RUN),
    ROOT / "results" / "README.md",
]
QUICK = ("configs", "--version", "--help")  # commands that take no time
# Last on the command line of `fit`, so that each run takes seconds.
LIMITS = {
    "seed_everything": 0,
    "trainer": {"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False},
    "data": {"limit_report_rows": 4, "limit_train_rows": 4, "selection_rows": 2, "batch_size": 2},
    "forgetting": {"text": None},
}
STUDY_LIMITS = ["--trainer.max_epochs", "1", "--data.limit_train_rows", "16", "--data.limit_report_rows", "8",
                "--data.selection_rows", "8", "--trainer.accelerator", "cpu", "--forgetting.text", "null"]  # fmt: skip


def ids(files: list[Path]) -> list[str]:
    return [file.relative_to(ROOT).as_posix() for file in files]


def commands(block: Block) -> list[list[str]]:
    """Return the commands of a block; those of this package also from a block without a language."""
    if block.language:
        return block.commands
    plain = Block(block.document, block.line, "console", None, block.reason, block.text)
    try:
        return [command for command in plain.commands if arguments(command) is not None]
    except ValueError:  # quotes of a text that is no command
        return []


@pytest.mark.parametrize("file", PARSED, ids=ids(PARSED))
def test_every_command_exists_with_its_settings(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    indented = r"^ {4}(smoa-lightning|python -m smoa_lightning) .*"  # no block, so nothing would parse it
    assert re.findall(indented, file.read_text(encoding="utf-8"), re.MULTILINE) == []
    found = list(blocks(file))
    for block in found:
        if block.title:
            written(block, tmp_path)
    for block in found:
        for command in commands(block):
            given = arguments(command)
            if given is None or given[0].startswith("-"):
                continue
            assert given[0] in COMMANDS, f"{file}:{block.line}: {command}"
            if "--ckpt_path" in given:  # a checkpoint that an earlier command has written
                written(Block(file.name, 0, "", given[given.index("--ckpt_path") + 1], None, ""), tmp_path)
            if given[0] in WITH_SETTINGS and not places_of_the_reader(given):
                words = split_flags(given[1:])[1] if given[0] == "params" else given[1:]
                check_arguments(given[0], words)  # raises for an unknown setting, value or file
            elif given[0] not in WITH_SETTINGS:
                flags_are_in_the_help(given, capsys)


@pytest.fixture(autouse=True)
def _forget_own_methods() -> Iterator[None]:
    yield
    forget_the_method()


def places_of_the_reader(given: list[str]) -> bool:
    """Whether a command names files that only its reader has."""
    return any(name in word for word in given for name in ("FOLDER", "--allow_classes"))


def flags_are_in_the_help(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Compare the flags of a command with its help; keys of a study may be any setting."""
    capsys.readouterr()
    with contextlib.suppress(SystemExit):  # of argparse
        main([given[0], "--help"])
    text = capsys.readouterr().out
    for word in given[1:]:
        if word.startswith("--") and not (given[0] == "ablate" and "." in word):
            assert word.partition("=")[0] in text, f"{given}: {word}"


@pytest.mark.parametrize("file", RUN, ids=ids(RUN))
def test_quick_commands_run(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for block in blocks(file):
        for command in block.commands:
            given = arguments(command)
            if block.reason is None and given is not None and any(word in QUICK for word in given):
                assert main(given) == 0, command


@pytest.mark.parametrize("file", RUN, ids=ids(RUN))
def test_every_block_that_is_not_run_has_a_reason(file: Path) -> None:
    known = ("smoa-lightning", "python")
    for block in blocks(file):
        for command in block.commands:
            assert block.reason or command[0] in known, f"{file.name}:{block.line}: no test can run {command}"


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a clean environment with the wheel."""
    return clean_environment(tmp_path_factory.mktemp("wheel"))


@pytest.mark.slow
@pytest.mark.parametrize("file", RUN, ids=ids(RUN))
def test_every_command_runs_as_printed(file: Path, programs: Path, tmp_path: Path) -> None:
    """In the order of the page, from the wheel, outside of the source tree."""
    (tmp_path / "limits.yaml").write_text(yaml.safe_dump(LIMITS), encoding="utf-8")
    environment = variables(programs, tmp_path)
    for block in blocks(file):
        if block.title:
            written(block, tmp_path)
        for command in block.commands if block.reason is None else ():
            words = limited(command)
            done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, (
                f"{file.name}:{block.line}: {command}\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
            )


def written(block: Block, folder: Path) -> None:
    """Write the file of a block."""
    place = folder / str(block.title)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(block.text, encoding="utf-8")


def limited(command: list[str]) -> list[str]:
    """Return a command with small limits for `fit` and `ablate`."""
    if "fit" in command:
        return [*command, "--config", "limits.yaml"]
    return [*command, *STUDY_LIMITS, "--seeds=2"] if "ablate" in command else command
