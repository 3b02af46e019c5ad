"""``ablate``: plan a study, run it, or work as one of its workers."""

from __future__ import annotations

import contextlib
import logging
import signal
from collections.abc import Iterator
from pathlib import Path

from smoa_lightning.ablation.execution.options import Options, parse_options, usage
from smoa_lightning.ablation.planning.extension_check import check_extension
from smoa_lightning.ablation.planning.finished_runs import count_final
from smoa_lightning.ablation.planning.search_check import check_search
from smoa_lightning.ablation.study.expand import load_study
from smoa_lightning.ablation.study.optuna_objects import try_search
from smoa_lightning.ablation.study.reach import with_stored_reach
from smoa_lightning.ablation.study.sources import lines, with_sources
from smoa_lightning.ablation.study.space import Study
from smoa_lightning.ablation.study.study_compatibility import (
    LATE,
    check_folder,
    check_unchanged,
    describe_study,
    late_changes,
)
from smoa_lightning.common import console
from smoa_lightning.common.checksums import write_sealed
from smoa_lightning.common.errors import UserError
from smoa_lightning.common.fast_imports import import_command
from smoa_lightning.common.user_program import environment, import_program
from smoa_lightning.data.tasks import registered_tasks
from smoa_lightning.records.record import STUDY

logger = logging.getLogger(__name__)


def main(args: list[str]) -> None:
    """Plan a study, run it, or work as one of its workers.

    Raises:
        UserError: The study, its folder or its storage is wrong.
    """
    if "-h" in args or "--help" in args:
        print(usage())
        return
    options = parse_options(args)
    if options.worker is not None:
        import_program()  # it may register tasks
    study = load_study(options.files, options.study_flags)
    check_devices(study)
    if study.search is not None and options.worker is None:
        try_search(study.search)
    folder = options.folder_of(study.name)
    study = with_sources(study, folder)
    if options.worker is not None:
        from smoa_lightning.ablation.execution.worker import be_worker

        check_unchanged(study, folder)
        be_worker(with_stored_reach(study, folder), folder, options)
    elif options.plan:
        check_folder(folder, study)
        _plan(study, folder, options)
    else:
        run_study(study, folder, options, args)


def check_program() -> None:
    """Refuse a study that needs registered tasks if its workers cannot import the program that registers them.

    Raises:
        UserError: The program has no file.
    """
    if (names := registered_tasks()) and not environment():
        raise UserError(
            f"the workers of a study import the program that registers the task {names[0]!r}, but it has no file, as "
            "in a notebook or with python -c: write it to a file, and start the study from there"
        )


def check_devices(study: Study) -> None:
    """Refuse runs on several devices: Lightning would start their processes with the worker's command line.

    Raises:
        UserError: A cell sets several devices; the message names the first such cell.
    """
    for cell in study.cells:
        trainer = cell.settings.get("trainer") or {}
        for name in ("devices", "num_nodes"):
            if (value := trainer.get(name, 1)) not in (1, "1", "auto", None):
                raise UserError(
                    f"trainer.{name} is {value!r} in cell {cell.name}, but a run of a study uses one device: set it "
                    "to 1, and start one worker for each device (--workers)"
                )


@contextlib.contextmanager
def stopping_like_ctrl_c() -> Iterator[None]:
    """Stop the study and its workers, as Ctrl-C does, on the signals of a batch system or a closed terminal."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    names = (signal.SIGTERM, signal.SIGHUP)
    previous = [signal.signal(name, stop) for name in names]
    try:
        yield
    finally:
        for name, handler in zip(names, previous, strict=True):
            signal.signal(name, handler)


def run_study(study: Study, folder: Path, options: Options, args: list[str]) -> None:
    """Check the folder and the storage, describe the study there, and start its workers."""
    from smoa_lightning.ablation.execution.ledger import ORPHANED
    from smoa_lightning.ablation.execution.storage import close_storage, open_storage
    from smoa_lightning.ablation.execution.supervisor import Supervisor

    check_program()
    check_search(study, folder)
    study = check_extension(study)
    for line in lines(study.sources):
        logger.info("%s", line)
    changes = check_folder(folder, study)
    for change in changes:
        logger.info("the study has grown or changed: %s", change)
    storage = open_storage(options.storage, folder)
    try:
        supervisor = Supervisor(study, folder, storage, options.workers, args)
        late = late_changes(folder, changes, count_final(folder) if changes else 0)
        write_sealed(folder / STUDY, describe_study(study) | ({LATE: late} if late else {}))
        if options.retry_failed:
            supervisor.reset_failures()
        for name in supervisor.reopen_lost():
            logger.warning(
                "run %s was finished, but its folder is missing or damaged: it will run again",
                name,
                extra=console.ON_STDOUT,
            )
        for name in supervisor.orphaned():
            logger.info("the run %s was %s: it continues", name, ORPHANED)
        with stopping_like_ctrl_c():
            supervisor.run()
            if any(change.startswith("fewer seeds") for change in changes):
                supervisor.aggregate_again()
    finally:
        close_storage(storage)


def _plan(study: Study, folder: Path, options: Options) -> None:
    from smoa_lightning.ablation.planning.plan import plan
    from smoa_lightning.ablation.planning.plan_table import render

    measure = import_command("smoa_lightning.ablation.planning.estimate").measure
    print(render(plan(study), measure(study, folder, options.workers)))
