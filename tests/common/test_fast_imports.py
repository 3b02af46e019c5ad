"""Work that is deferred at the start happens at first use."""

from __future__ import annotations

import functools
import gc
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import torch

from smoa_lightning.common.fast_imports import deferred_compile, folders_read_once, without_collection


def fake_torch(made: list[tuple[Any, dict[str, Any]]]) -> Any:
    def compile_now(model: Any, **options: Any) -> Any:
        made.append((model, options))
        return lambda *args: ("compiled", model(*args))

    return SimpleNamespace(compile=compile_now, nn=torch.nn)


def test_a_function_is_compiled_when_it_is_first_called() -> None:
    made: list[tuple[Any, dict[str, Any]]] = []
    stand_in = fake_torch(made)
    before = stand_in.compile

    def double(x: int) -> int:
        return 2 * x

    with deferred_compile(stand_in):
        plain = stand_in.compile(double)
        decorated = stand_in.compile(dynamic=True)(double)
        layer = torch.nn.Identity()
        stand_in.compile(layer)
    assert stand_in.compile is before
    assert made == [(layer, {})]  # a module is compiled at once, since its caller may inspect it
    assert (plain(2), plain(3), decorated(4)) == (("compiled", 4), ("compiled", 6), ("compiled", 8))
    assert made[1:] == [(double, {}), (double, {"dynamic": True})]
    assert plain.__name__ == "double"


def test_the_collector_is_on_again() -> None:
    with without_collection():
        assert not gc.isenabled()
    assert gc.isenabled()
    assert gc.get_freeze_count() > 0
    gc.unfreeze()


def test_deferred_modules_are_loaded_when_they_are_used() -> None:
    code = """
import functools
import sys
from smoa_lightning.common.fast_imports import import_command
before = functools.lru_cache
import_command("smoa_lightning.version")
assert functools.lru_cache is before
late = [name for name in ("matplotlib", "scipy.signal", "scipy.optimize") if name in sys.modules]
assert not late, late
import torchmetrics
metric = torchmetrics.MeanMetric()
metric.update(1.0)
import matplotlib
matplotlib.use("agg")
figure, _ = metric.plot()
assert type(figure).__module__ == "matplotlib.figure"
import scipy.signal
assert callable(scipy.signal.fftconvolve)
from transformers.loss import loss_for_object_detection as losses
cost = [[4.0, 1.0], [2.0, 8.0]]
rows, columns = losses.linear_sum_assignment(cost, maximize=True)
import scipy.optimize
expected = scipy.optimize.linear_sum_assignment(cost, maximize=True)
assert [list(rows), list(columns)] == [list(part) for part in expected] == [[0, 1], [0, 1]]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_transformers_remembers_all_of_its_folders() -> None:
    plain: Any = functools.lru_cache
    with folders_read_once():

        @functools.lru_cache
        def create_import_structure_from_path(path: str) -> str:
            return path

        @functools.lru_cache
        def other(path: str) -> str:
            return path

        @functools.lru_cache(maxsize=3)
        def small(path: str) -> str:
            return path

    assert functools.lru_cache is plain
    functions: list[Any] = [create_import_structure_from_path, other, small]
    assert [function.cache_info().maxsize for function in functions] == [None, 128, 3]
    assert [function("a") for function in functions] == ["a"] * 3
