"""The arguments of ``ablate``: options of the execution, and flags for the study."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from smoa_lightning.ablation.study.study_file import STUDY_KEYS
from smoa_lightning.common.console import FLAGS, HELP
from smoa_lightning.common.errors import UserError, the_nearest
from smoa_lightning.common.paths import local_path
from smoa_lightning.configuration.check import flags
from smoa_lightning.configuration.key_names import OTHER_WORDS
from smoa_lightning.configuration.shipped_files import config_file

OPTIONS = {
    "config": "study file; give it again for files that change the study",
    "plan": "print the runs, their cost and the smallest detectable difference, and run nothing",
    "workers": "number of processes on this machine (default: 1)",
    "storage": "URL of an Optuna storage, such as postgresql://user@host/name (default: a journal in the study folder)",
    "root": "folder of all studies (default: studies); a finished run of one study is copied by the others",
    "folder": "exact folder of the study (default: ROOT/NAME)",
    "retry_failed": "try runs again that have failed too often",
    "worker_number": "run only one worker of the study; --workers starts such processes",
}


@dataclass(frozen=True)
class Options:
    """Options of the execution of a study.

    Attributes:
        files: Study files.
        study_flags: Key -> text, for the study.
        plan: Print the plan and stop.
        workers: Number of processes on this machine.
        storage: URL of the storage.
        root: Folder of all studies.
        folder: Exact folder of the study.
        retry_failed: Reset failures.
        worker: Number of this worker; ``None`` for the process that starts the workers.
    """

    files: tuple[Path, ...]
    study_flags: tuple[tuple[str, str | None], ...] = ()
    plan: bool = False
    workers: int = 1
    storage: str | None = None
    root: Path = Path("studies")
    folder: Path | None = None
    retry_failed: bool = False
    worker: int | None = None

    def folder_of(self, name: str) -> Path:
        """Return the folder of a study."""
        return self.folder if self.folder is not None else self.root / name


def parse_options(args: list[str]) -> Options:
    """Read the arguments of ``ablate``.

    Raises:
        UserError: There is no study file, an option is unknown, or an option has no value or a wrong value.
    """
    given: dict[str, str | None] = {}
    files: list[Path] = []
    for_study: list[tuple[str, str | None]] = []
    for key, text in flags(args):
        name = key.replace("-", "_")
        if name == "config":
            files.append(config_file(_text(name, text), "ablations", "--config"))
        elif name in OPTIONS:
            given[name] = text
        elif "." not in name and name not in STUDY_KEYS and (near := _near(name)):
            raise UserError(f"ablate has no option --{key}; {the_nearest(near)}")
        else:
            for_study.append((key, text))
    if not files:
        raise UserError("ablate needs a study file: --config ablations/NAME.yaml")
    return Options(
        files=tuple(files),
        study_flags=tuple(for_study),
        plan=_switch("plan", given),
        workers=_number("workers", given.get("workers", "1"), 1),
        storage=_text("storage", given["storage"]) if "storage" in given else None,
        root=local_path(_text("root", given["root"])) if "root" in given else Path("studies"),
        folder=local_path(_text("folder", given["folder"])) if "folder" in given else None,
        retry_failed=_switch("retry_failed", given),
        worker=_number("worker_number", given["worker_number"], 0) if "worker_number" in given else None,
    )


def _near(name: str) -> str:
    """Return the options that a word probably means; empty if it may be the last word of a configuration key."""
    options = [*OPTIONS, *FLAGS]
    meant = [word for word in OTHER_WORDS.get(name, ()) if word in OPTIONS]
    longer = [option for option in options if option.startswith(name) and len(name) > 2]
    found = meant or longer or difflib.get_close_matches(name, options, 1, cutoff=0.87)
    return ", ".join(f"--{option}" for option in found)


def _text(name: str, text: str | None) -> str:
    if not text:
        raise UserError(f"--{name} needs a value: {OPTIONS[name]}")
    return text


def _number(name: str, text: str | None, least: int) -> int:
    if text is None or not text.isdigit() or int(text) < least:
        raise UserError(f"--{name} is {text!r}, but must be a whole number of at least {least}")
    return int(text)


def _switch(name: str, given: dict[str, str | None]) -> bool:
    text = given.get(name, "false") or "true"
    if text not in ("true", "false"):
        raise UserError(f"--{name} is {text!r}, but must have no value, or true or false")
    return text == "true"


def usage() -> str:
    """Return the help of ``ablate``."""
    lines = ["usage: python -m smoa_lightning ablate --config ablations/NAME.yaml [--config FILE ...] [OPTION ...]", ""]
    lines += [
        "Run a study: every cell of its grid with every seed, after a search for each cell if the study has one. The"
    ]
    lines += ["same command continues a stopped study. Next: python -m smoa_lightning report FOLDER", "", "options:"]
    lines += [f"  --{name:13} {text}" for name, text in OPTIONS.items()]
    lines += ["", "keys of a study, which flags can also set (--seeds=5, --search.trials=16, --axes.r=[4,8]):"]
    lines += [f"  --{name:13} {text}" for name, text in STUDY_KEYS.items()]
    lines += ["", HELP, "", "any other --KEY VALUE is a configuration key of `fit`, set for all runs"]
    return "\n".join(lines)
