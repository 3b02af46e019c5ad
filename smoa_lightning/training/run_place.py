"""The folder of a run with several processes: the first process claims it, the others learn of it.

Lightning starts the other processes with the environment of the first one, so a variable there names the folder. A
launcher such as torchrun or SLURM starts all processes at once. They then ask the first process through a store at the
address that they use for the process group later. A shared file would not do: it could be that of an earlier job.
"""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from smoa_lightning.common.errors import UserError
from smoa_lightning.common.parent import PARENT, die_with_parent
from smoa_lightning.records.claim import Claim, claim
from smoa_lightning.records.record import DifferentRun, RunFolder, differing, run_folder
from smoa_lightning.training.run_checkpoints import recover
from smoa_lightning.training.unchanged import Identity

FOLDER = "SMOA_LIGHTNING_RUN_FOLDER"  # environment variable for the processes that this one starts
PATIENCE = datetime.timedelta(minutes=10)

_stores: list[TCPStore] = []  # the process group shares the server of the first store, which must not close before
_asked = 0  # how many folders the processes have shared; a process can do several runs


def base_of(root: Path, names: Sequence[str], identity: Identity) -> Path:
    """Return the folder of all versions of a run: ``root/<name>``, or of an earlier name if a run there is unfinished.

    Args:
        root: Folder of all runs.
        names: The name of the run, then the names that earlier versions give it.
        identity: The run.
    """
    for name in names[1:]:
        if run_folder(root / name, identity.signature, False, identity.branches).resume:
            return root / name
    return root / names[0]


def claim_recovered(
    base: Path, run_signature: str, exact: bool, older: str = "", config: Mapping[str, Any] | None = None
) -> Claim:
    """Claim a folder as :func:`claim` does, and repair what a killed run left in it, before its resume point is read.

    Args:
        base: As for :func:`claim`.
        run_signature: As for :func:`claim`.
        exact: As for :func:`claim`.
        older: As for :func:`claim`.
        config: The settings of this run, for the message about a folder with a different run.

    Raises:
        UserError: As :func:`claim`, or the run has no intact checkpoint.
    """
    try:
        claimed = claim(base, run_signature, exact, older)
    except DifferentRun as error:
        what = differing(config or {}, error.config) or "its sources are different"
        raise UserError(f"{error.what}: {what}; choose a different --run.folder") from error
    try:
        recover(claimed.target.path)
    except BaseException:
        claimed.release()
        raise
    return claimed


def shared_folder(trainer: L.Trainer, claim: Callable[[], Claim]) -> tuple[RunFolder, Claim | None]:
    """Return the folder of the run for this process, and in the first process the claim.

    Args:
        trainer: The trainer, whose processes are not connected yet.
        claim: Claims the folder; called in the first process only.

    Raises:
        UserError: The folder is refused, or the first process does not answer.
        SystemExit: In the other processes, if the first one has refused the folder; it prints the reason.
    """
    if trainer.world_size == 1:
        claimed = claim()
        return claimed.target, claimed
    first = trainer.global_rank == 0
    if not first and FOLDER in os.environ:
        die_with_parent()
        return _read(os.environ[FOLDER]), None
    environment: Any = getattr(trainer.strategy, "cluster_environment", None)
    if environment is None or (not environment.creates_processes_externally and trainer.num_nodes == 1):
        claimed = claim()
        os.environ |= {FOLDER: _written(claimed.target), PARENT: str(os.getpid())}
        return claimed.target, claimed
    store, key = _store(environment.main_address, environment.main_port, first)
    if first:
        try:
            claimed = claim()
        except BaseException:
            store.set(key, "")
            raise
        os.environ[FOLDER] = _written(claimed.target)
        store.set(key, os.environ[FOLDER])
        return claimed.target, claimed
    try:
        answer = store.get(key).decode()
    except RuntimeError as error:
        raise UserError(f"the first process of the run did not choose its folder within {PATIENCE}") from error
    if not answer:
        raise SystemExit(2)
    return _read(answer), None


def _store(address: str, port: int, first: bool) -> tuple[TCPStore, str]:
    global _asked
    _asked += 1
    agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"  # torchrun itself has opened the store
    try:
        store = TCPStore(
            address,
            port,
            is_master=first and not agent,
            timeout=PATIENCE,
            wait_for_workers=False,
            multi_tenant=True,
        )
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"the processes of the run cannot connect at {address}:{port}: {reason}") from error
    _stores.append(store)
    return store, f"smoa_lightning/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/{_asked}"


def _written(folder: RunFolder) -> str:
    return json.dumps({"path": str(folder.path.absolute()), "resume": folder.resume})


def _read(text: str) -> RunFolder:
    facts = json.loads(text)
    return RunFolder(Path(facts["path"]), resume=facts["resume"])
