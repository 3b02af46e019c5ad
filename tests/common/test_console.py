"""Which notes a command shows, on which stream, and that the package shows none as a library."""

from __future__ import annotations

import contextlib
import logging
import os
import pty
import subprocess
import sys
import termios
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from smoa_lightning.__main__ import main
from smoa_lightning.commands import COMMANDS
from smoa_lightning.common import console
from smoa_lightning.common.console import ON_STDERR, ON_STDOUT, split_flags
from smoa_lightning.common.quiet import quiet_libraries
from smoa_lightning.training.progress_bar import fit_terminal

from ..runs import only_run

logger = logging.getLogger("smoa_lightning.some.module")


def notes() -> None:
    for name in ("debug", "info", "warning", "error"):
        getattr(logger, name)("%s", name)


@pytest.mark.parametrize(
    ("mode", "out", "err"),
    [
        ("quiet", "", "smoa_lightning: warning: warning\nsmoa_lightning: error\n"),
        ("normal", "info\n", "smoa_lightning: warning: warning\nsmoa_lightning: error\n"),
        ("verbose", "debug\ninfo\n", "smoa_lightning: warning: warning\nsmoa_lightning: error\n"),
    ],
)
def test_notes_go_to_stdout_and_warnings_to_stderr(
    mode: str, out: str, err: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with console.console(mode):
        notes()
    assert capsys.readouterr() == (out, err)
    assert console.flags() == []


def test_a_note_may_name_its_stream(capsys: pytest.CaptureFixture[str]) -> None:
    with console.console():
        logger.warning("banner", extra=ON_STDOUT)
        logger.info("timing", extra=ON_STDERR)
    assert capsys.readouterr() == ("banner\n", "timing\n")


def test_only_the_first_process_shows_notes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from lightning.pytorch.utilities import rank_zero_only

    monkeypatch.setattr(rank_zero_only, "rank", 1)
    with console.console():
        notes()
    assert capsys.readouterr() == ("", "smoa_lightning: warning: warning\nsmoa_lightning: error\n")


@pytest.mark.parametrize(
    "words", [["--quiet", "fit", "--k", "1"], ["fit", "--quiet", "--k", "1"], ["fit", "--k", "1", "--quiet"]]
)
def test_flags_may_be_before_and_after_the_command(words: list[str]) -> None:
    assert split_flags(words) == ("quiet", ["fit", "--k", "1"])
    assert split_flags([*words, "--verbose"]) == ("verbose", ["fit", "--k", "1"])  # the last flag counts


def test_wrong_flags_are_refused_in_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--quiet=true"]) == 2
    assert capsys.readouterr().err == "smoa_lightning: --quiet takes no value, but has the value 'true'\n"
    for words in (["fit", "--verbos", "1"], ["ablate", "--verbos", "1"]):
        assert main(words) == 2
        assert "verbose" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_names_the_flags(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.suppress(SystemExit):  # argparse exits
        main([*command.split(), "--help"])
    shown = capsys.readouterr().out
    assert "\n  --quiet " in shown
    assert "\n  --verbose " in shown


def output_of(code: str) -> tuple[str, str]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    return done.stdout, done.stderr


def test_a_library_user_configures_logging() -> None:
    code = """
import logging, sys
logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(name)s %(message)s")
logging.getLogger("smoa_lightning.data").info("a note")
"""
    assert output_of(code) == ("smoa_lightning.data a note\n", "")


def test_quiet_switches_progress_bars_off() -> None:
    code = """
from smoa_lightning.common.console import console
with console({mode!r}):
    from tqdm import tqdm
    list(tqdm(range(3)))
"""
    assert output_of(code.format(mode="quiet")) == ("", "")
    assert output_of(code.format(mode="normal")) == ("", "")  # the standard error is a pipe
    assert "3/3" in in_a_terminal(code.format(mode="normal"))
    assert "3/3" not in in_a_terminal(code.format(mode="quiet"))


def in_a_terminal(code: str) -> str:
    """Return what a program writes to a terminal."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    with subprocess.Popen([sys.executable, "-c", code], stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        written = b""
        with contextlib.suppress(OSError):  # the end of a terminal
            while part := os.read(ours, 4096):
                written += part
        os.close(ours)
    assert process.returncode == 0
    return written.decode()


def test_bars_of_libraries_and_of_this_package_are_for_terminals() -> None:
    code = """
from smoa_lightning.common.console import console, no_bar
with console({mode!r}):
    from huggingface_hub.utils import tqdm as theirs
    list(theirs(range(3), desc="Fetching files"))
    from tqdm import tqdm
    list(tqdm(range(3), desc="frozen state", disable=no_bar()))
"""
    assert "Fetching files" not in "".join(output_of(code.format(mode="normal")))
    assert "frozen state" not in "".join(output_of(code.format(mode="normal")))
    shown = in_a_terminal(code.format(mode="normal"))
    assert "Fetching files" in shown
    assert "frozen state" in shown
    assert in_a_terminal(code.format(mode="quiet")) == ""


class Bar:
    enabled = True

    def disable(self) -> None:
        self.enabled = False

    def get_metrics(self) -> dict[str, float]:
        return {"train/loss": 1.0, "selection/perplexity": 2.0, "v_num": 0.0}


def test_the_bar_of_a_run_needs_a_terminal_and_has_short_names(monkeypatch: pytest.MonkeyPatch) -> None:
    bar = Bar()
    fit_terminal(bar)
    assert not bar.enabled
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    fit_terminal(bar := Bar())
    assert bar.enabled
    assert bar.get_metrics() == {"loss": 1.0, "perplexity": 2.0, "v_num": 0.0}
    fit_terminal(None)
    with console.console("quiet"):
        fit_terminal(bar)
    assert not bar.enabled


def test_only_verbose_shows_the_warning_about_points_of_tensorboard(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "The number of training batches (2) is smaller than the logging interval Trainer(log_every_n_steps=5)."
    for mode, count in (("verbose", 1), ("normal", 0), ("quiet", 0)):
        with warnings.catch_warnings(record=True) as caught, console.console(mode):
            warnings.simplefilter("always")
            quiet_libraries()
            warnings.warn(text, stacklevel=1)
        assert len(caught) == count


def test_levels_of_libraries_follow_the_flags() -> None:
    for mode, lightning, other in (("quiet", 30, 30), ("verbose", 20, 20), ("normal", 20, 30)):
        with console.console(mode):
            console.set_library_levels()
        assert logging.getLogger("lightning.pytorch").level == lightning
        assert logging.getLogger("transformers").level == other


def test_messages_of_libraries_have_their_names(capsys: pytest.CaptureFixture[str]) -> None:
    with console.console("verbose"):
        console.set_library_levels()
        logging.getLogger("httpx").info("HTTP Request: GET")
    logging.getLogger("httpx").info("no longer shown")
    assert capsys.readouterr() == ("", "httpx: HTTP Request: GET\n")
    console.set_library_levels()


def test_a_quiet_fit_shows_its_result_only(
    tiny_arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bars = ["--trainer.enable_progress_bar", "true", "--trainer.max_steps", "2"]
    assert main(["fit", "--quiet", *tiny_arguments, *bars]) == 0
    out, err = capsys.readouterr()
    folder = only_run(tmp_path / "runs")
    assert [line.split()[:2] for line in out.splitlines()[3:5]] == [["base", "model"], ["after", "training"]]
    assert out.splitlines()[-1] == f"{folder}   (tensorboard --logdir {folder.parent})"
    assert out.splitlines()[5].startswith("*...*: the primary metric")
    assert len(out.splitlines()) == 8
    assert "Epoch" not in out + err
    assert "GPU" not in err
    assert main(["--verbose", "fit", *tiny_arguments, *bars]) == 0
    out, err = capsys.readouterr()
    for shown in ("run folder: ", "scoring the base model", "versions: ", "the run took ", "cached rows in "):
        assert shown in out
    one, two = sorted((tmp_path / "runs").glob("*/*/config.yaml"))
    assert one.read_text() == two.read_text()


STUDY = """
name: small
base: [{experiments}/piqa.yaml]
axes: {{r: [2, 4]}}
baseline: {{r: 2}}
objective: acc
seeds: 1
overrides:
  model.backbone.source: local
  model.backbone.path: {backbone}
  data.source: local
  data.path: {piqa}
  data.selection_rows: 8
  trainer.max_steps: 1
  trainer.accelerator: cpu
"""


@pytest.mark.slow
def test_workers_of_a_study_are_quiet_too(tiny_backbone: Path, piqa_folder: Path, tmp_path: Path) -> None:
    experiments = Path(__file__).parents[2] / "experiments"
    file = tmp_path / "small.yaml"
    file.write_text(STUDY.format(experiments=experiments, backbone=tiny_backbone, piqa=piqa_folder))
    command = [sys.executable, "-m", "smoa_lightning", "ablate", "--config", str(file), "--folder"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    shown = {}
    for flag in ("--quiet", "--verbose"):
        folder = tmp_path / flag / "study"  # the folders of studies are not siblings: finished runs are not copied
        done = subprocess.run(
            [*command, str(folder), flag], capture_output=True, text=True, env=environment, check=False, timeout=300
        )
        assert done.returncode == 0, done.stderr[-3000:]
        shown[flag] = done.stdout, (folder / "logs" / "worker-0.log").read_text()
    out, log = shown["--quiet"]
    folder = tmp_path / "--quiet" / "study"
    assert out == f"{folder}   (python -m smoa_lightning report {folder}; tensorboard --logdir {folder})\n"
    assert log == ""
    out, log = shown["--verbose"]
    assert "study small: 2 cells" in out
    for line in ("running r=2,seed=0", "run folder: ", "after training", "cached by an earlier run"):
        assert line in log


@pytest.mark.parametrize(
    ("note", "in_normal_mode"),
    [
        ("Seed set to 0", False),
        ("Restoring states from the checkpoint path at best.ckpt", False),
        ("Loaded model weights from the checkpoint at best.ckpt", False),
        ("`Trainer.fit` stopped: `max_epochs=1` reached.", False),
        ("\nDetected KeyboardInterrupt, attempting graceful shutdown ...", False),
        ("`Trainer.fit` stopped: No training batches.", True),
        ("Restored all states from the checkpoint at last.ckpt", True),
    ],
)
@pytest.mark.usefixtures("lightning_filters")
def test_details_of_lightning_are_for_verbose(note: str, in_normal_mode: bool) -> None:
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    record = logger.makeRecord(logger.name, logging.INFO, "", 0, note, (), None)
    for mode, shown in ((console.NORMAL, in_normal_mode), (console.VERBOSE, True)):
        with console.console(mode):
            quiet_libraries()
            assert bool(logger.filter(record)) == shown


@pytest.fixture
def lightning_filters() -> Iterator[None]:
    """Restore the filters of Lightning's loggers after a test."""
    names = ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.seed")
    before = {name: list(logging.getLogger(name).filters) for name in names}
    with warnings.catch_warnings():
        yield
    for name, filters in before.items():
        logging.getLogger(name).filters = filters
