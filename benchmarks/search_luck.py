"""How near the trials of a search come to the best learning rate, and how much cells differ by luck alone.

    python -m benchmarks.search_luck               # from the root of the project; minutes on one core

Every cell has the same objective: the squared distance of the learning rate from its best value, in decades. The best
value is at one of several places of the range. For each place, many cells are searched by the classes that a study
uses, with and without common first trials. Nothing but the names of the cells differs. The table has the share of cells
without a trial within a factor of the best value, and the standard deviation between cells with the same best value of
the distance between the nearest trial and the best value, in decades.
"""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import yaml

from smoa_lightning.ablation.execution.ledger import Ledger
from smoa_lightning.ablation.execution.trials import CellSearch
from smoa_lightning.ablation.execution.worker_id import Watch, WorkerId
from smoa_lightning.ablation.study.objective import Objective
from smoa_lightning.ablation.study.parameters import Parameter
from smoa_lightning.ablation.study.search_space import COMMON, OptunaClass, Search

STUDIES = Path(__file__).parents[1] / "ablations"
KEY = "model.optimizer.init_args.lr"


def distance(parameter: Parameter, trials: int, common: int, best: float, name: str) -> float:
    """Return the distance of the nearest trial of one searched cell from the best value, in decades."""
    search = Search((parameter,), trials, OptunaClass("tpe", "TPESampler"), OptunaClass("none", "NopPruner"), (1000,),
                    Objective("nll", "minimize"), common)  # fmt: skip
    cell: Any = SimpleNamespace(name=name, parameters=(parameter,), search_metric="nll")
    storage = optuna.storages.InMemoryStorage()
    ledger = Ledger(storage, name, "minimize", WorkerId.of(os.getpid()), Watch())
    cells, nearest = CellSearch(ledger, cell, search, retries=0), math.inf
    while (claimed := cells.claim()) is not None:
        far = abs(math.log10(claimed.parameters[KEY] / best))
        nearest = min(nearest, far)
        ledger.complete(claimed.attempt, far**2, 0.0)
    return nearest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", nargs="+", default=["methods", "reviewers"])
    parser.add_argument("--trials", type=int, nargs="+", default=[8, 16])
    parser.add_argument("--places", type=int, default=101, help="best values, evenly over the range")
    parser.add_argument("--cells", type=int, default=8, help="of each best value")
    parser.add_argument("--within", type=float, default=1.5, help="factor that counts as near")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    print("| study | range | trials | common | without a near trial | sd between equal cells |")
    print("|---|---|---|---|---|---|")
    for study in options.studies:
        given = yaml.safe_load((STUDIES / f"{study}.yaml").read_text())["search"]["parameters"]["lr"]
        low, high = float(given["low"]), float(given["high"])
        parameter = Parameter(KEY, "lr", low=low, high=high, log=True)
        places = [low * (high / low) ** ((place + 0.5) / options.places) for place in range(options.places)]
        for trials in options.trials:
            for common in (0, COMMON):
                found = np.array([
                    [distance(parameter, trials, common, best, f"{place}/{cell}") for cell in range(options.cells)]
                    for place, best in enumerate(places)
                ])  # fmt: skip
                far = 100 * (found > math.log10(options.within)).mean()
                luck = math.sqrt(found.var(axis=1, ddof=1).mean())
                print(f"| {study} | {low:g} to {high:g} | {trials} | {common} | {far:.1f} % | {luck:.3f} |", flush=True)


if __name__ == "__main__":
    main()
