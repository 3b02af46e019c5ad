"""Where the time of a training step goes on a GPU, and where the host waits for it.

* ``--steps``: a step of each method at the widths of LLaMA-3-8B (``gpu_steps.py``): milliseconds of every kernel, how
  long the GPU was busy, and the operations that made the host wait.
* ``--fit FLAGS``: a real ``fit``. Five steps note each operation that makes the host wait (``torch.cuda``'s
  synchronisation debug mode), with the line of this project that called it. Three more steps are profiled, and the
  steps after these are timed without instruments.

    python benchmarks/gpu_profile.py --json profile.json --steps
    python benchmarks/gpu_profile.py --json fit.json --fit --config experiments/piqa.yaml --trainer.max_steps 60

Without CUDA (``--device cpu``) it runs too, and finds no waits.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gpu_steps
import torch
from lightning.pytorch.callbacks import Callback
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

ROOT = str(Path(__file__).resolve().parent.parent)
WAITING, PROFILED, FIRST = 5, 3, 5  # steps of each part of a fit; the first steps warm up
found: dict[str, Any] = {}


def synchronise() -> None:
    """Wait for the device."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


@contextlib.contextmanager
def waits() -> Iterator[Counter[str]]:
    """Count the operations in the block that make the host wait for the GPU, by the lines that call them."""
    places: Counter[str] = Counter()

    def note(message: Any, *others: Any, **named: Any) -> None:
        if "synchronizing" not in str(message):
            return
        stack = [frame for frame in traceback.extract_stack()[:-1] if not frame.filename.endswith("warnings.py")]
        own = [frame for frame in stack if frame.filename.startswith(ROOT) and frame.filename != __file__]
        lines = [*own[-1:], stack[-1]] if not own or own[-1] is not stack[-1] else [stack[-1]]
        shown = [f"{frame.filename.removeprefix(ROOT)}:{frame.lineno} {frame.name}: {frame.line}" for frame in lines]
        places[" <- ".join(reversed(shown))] += 1

    synchronise()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note
        if torch.cuda.is_available():
            torch.cuda.set_sync_debug_mode("warn")
        try:
            yield places
        finally:
            if torch.cuda.is_available():
                torch.cuda.set_sync_debug_mode("default")


class Kernels:
    """The profile of several steps: what ran on the GPU, in milliseconds a step."""

    def __init__(self) -> None:
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
        self.profiler = profile(activities=activities)
        synchronise()
        self.profiler.__enter__()
        self.began = time.perf_counter()

    def table(self, steps: int, rows: int = 25) -> dict[str, Any]:
        """End the profile; return milliseconds of a step, of the busy GPU, and of the longest kernels."""
        synchronise()
        wall = 1e3 * (time.perf_counter() - self.began) / steps
        self.profiler.__exit__(None, None, None)
        events = self.profiler.key_averages()
        if torch.cuda.is_available():
            own = [(e.self_device_time_total, e.count, e.key) for e in events if e.device_type == DeviceType.CUDA]
        else:
            own = [(e.self_cpu_time_total, e.count, e.key) for e in events]
        own.sort(reverse=True)
        busy = sum(spent for spent, _, _ in own) / 1e3 / steps
        kernels = [[round(spent / 1e3 / steps, 4), count / steps, name[:110]] for spent, count, name in own[:rows]]
        calls = sum(count for _, count, _ in own) / steps
        return {"wall_ms": wall, "busy_ms": busy, "kernels_a_step": calls, "ms_calls_kernel": kernels}


class Watch(Callback):
    """Watches the steps of a fit; see the module's docstring."""

    def __init__(self) -> None:
        self.stack = contextlib.ExitStack()
        self.kernels: Kernels | None = None
        self.places: Counter[str] = Counter()
        self.timed_from, self.began = 0, 0.0

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Begin and end the parts."""
        step = trainer.global_step
        if step == FIRST:
            self.places = self.stack.enter_context(waits())
        elif step == FIRST + WAITING:
            self.stack.close()
            found["waits_a_step"] = {place: count / WAITING for place, count in self.places.most_common()}
            self.kernels = Kernels()
        elif step == FIRST + WAITING + PROFILED:
            assert self.kernels is not None
            found["profile"] = self.kernels.table(PROFILED)
            synchronise()
            self.timed_from, self.began = step, time.perf_counter()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Note the time of the last steps."""
        self.stack.close()
        synchronise()
        if steps := trainer.global_step - self.timed_from:
            found["timed"] = {"steps": steps, "ms_a_step": 1e3 * (time.perf_counter() - self.began) / steps}


def watch_fit(flags: list[str]) -> int:
    """Run a ``fit`` with the callback."""
    from smoa_lightning.__main__ import main as command

    return command(["fit", *flags, "--trainer.callbacks+=gpu_profile.Watch"])


def watch_steps(options: argparse.Namespace) -> int:
    """Profile three steps of each method, then note the waits of one; a method that fails is recorded."""
    errors = 0
    for method in options.methods:
        try:
            step = gpu_steps.Step(options, method)
            for _ in range(3):
                step()
            kernels = Kernels()
            for _ in range(3):
                step.make()
            found[method] = kernels.table(3)
            with waits() as places:
                step.make()
            found[method]["waits"] = dict(places)
        except Exception as error:
            errors += 1
            found[method] = {"error": f"{type(error).__name__}: {error}"[:500]}
        print(method, json.dumps(found[method])[:300], flush=True)
    return 1 if errors else 0


def main() -> int:
    """Measure and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", required=True, help="file for the results")
    parser.add_argument("--steps", action="store_true", help="profile the steps of gpu_steps.py")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--methods", nargs="+", default=gpu_steps.METHODS[:-1])
    parser.add_argument("--tiny", action="store_true", help="tiny widths, to try the script on a CPU")
    parser.add_argument("--fit", nargs=argparse.REMAINDER, help="flags of a fit to watch")
    options = parser.parse_args()
    options.mode, options.layers = "eager", 2
    options.batch, options.tokens = (2, 16) if options.tiny else (8, 256)
    status = watch_steps(options) if options.steps else watch_fit(options.fit)
    Path(options.json).write_text(json.dumps(found, indent=1), encoding="utf-8")
    return status


if __name__ == "__main__":
    sys.modules["gpu_profile"] = sys.modules["__main__"]  # the callback's class path means this module
    raise SystemExit(main())
