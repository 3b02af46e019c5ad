"""Options of Lightning's Trainer that a run cannot follow, each with the reason. Nothing is imported for the check."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from smoa_lightning.common.errors import UserError

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
LIGHTNING = ("lightning", "pytorch_lightning", "lightning_fabric")

AVERAGES = (
    "it averages a copy of the whole model, and no checkpoint of an adapter holds the averages: let the learning rate "
    "end at zero with model.decay linear"
)
LAYERS = "model.adapter decides which parameters are trained"
CALLBACKS = {  # class of Lightning -> why a run cannot have it, or one of its subclasses
    "WeightAveraging": AVERAGES,
    "StochasticWeightAveraging": AVERAGES,
    "BaseFinetuning": LAYERS,
    "ModelPruning": "it changes frozen weights, which no checkpoint holds",
    "BatchSizeFinder": "the record would have another batch size than the run: set data.batch_size",
    "LearningRateFinder": "the record would have another learning rate than the run: search it with ablate",
    "GradientAccumulationScheduler": (
        "the learning rate needs the number of steps before training: set trainer.accumulate_grad_batches"
    ),
    "ModelCheckpoint": ("a run writes its own checkpoints, the best and the last: set checkpoint.every_n_steps"),
    "SpikeDetection": (
        "its state cannot be saved, and it compares losses of batches with different numbers of tokens: set "
        "trainer.gradient_clip_val"
    ),
}
# Subclasses, since names are checked before a class is imported.
DERIVED = {"EMAWeightAveraging": "WeightAveraging", "BackboneFinetuning": "BaseFinetuning"}

PROFILER = (
    "it measures one stage, and a run scores, trains and scores again: set it to simple or advanced, or use "
    "torch.profiler in Python"
)


def _is_pytorch_profiler(value: Any) -> bool:
    class_path = getattr(value, "class_path", None)  # of the parser; a file gives a mapping
    class_path = value.get("class_path") if isinstance(value, Mapping) else class_path
    return value == "pytorch" or str(class_path).endswith("PyTorchProfiler")


FLAGS: dict[str, tuple[Callable[[Any], bool], str]] = {  # setting -> whether a value is refused, and why
    "trainer.enable_checkpointing": (
        lambda value: value is False,
        "a run always writes the best and the last adapter: leave it out, or set checkpoint.every_n_steps to a large "
        "number",
    ),
    "trainer.default_root_dir": (
        lambda value: value is not None,
        "run.root sets the folder of all runs: set it instead",
    ),
    "trainer.barebones": (
        lambda value: value is True,
        "a run needs its logger, its callbacks and its checkpoints: set it to false",
    ),
    "trainer.overfit_batches": (
        lambda value: isinstance(value, int | float) and value > 0,
        "each epoch would take other rows: set data.limit_train_rows to the number of rows",
    ),
    "trainer.profiler": (_is_pytorch_profiler, PROFILER),
    "trainer.model_registry": (
        lambda value: value is not None,
        "a run is saved in its folder alone: set it to null",
    ),
}


def check_callback_name(class_path: str, where: str = "") -> None:
    """Refuse a callback of Lightning by its name.

    Args:
        class_path: A class path, or the name of a class of Lightning.
        where: Start of the message: file and line.

    Raises:
        UserError: A run cannot have this callback; the message says why.
    """
    package, _, name = class_path.rpartition(".")
    if package and package.split(".")[0] not in LIGHTNING:
        return
    reason = CALLBACKS.get(DERIVED.get(name, name))
    if reason is not None:
        raise refused_callback(name, reason, where)


def refused_callback(name: str, reason: str, where: str = "") -> UserError:
    """Return the error about a callback that a run cannot have."""
    return UserError(f"{where}trainer.callbacks: {name} is not supported, since {reason}")


def check_flags(value: Callable[[str], Any], keys: Iterable[str] = FLAGS) -> None:
    """Refuse flags of the Trainer that a run would not follow.

    Args:
        value: Returns the value of a key, or its default; ``None`` if it is unknown.
        keys: The keys to check.

    Raises:
        UserError: The message names the setting that does what is meant.
    """
    for key in keys:
        is_refused, reason = FLAGS[key]
        given = value(key)
        if is_refused(given):
            shown = str(given).lower() if isinstance(given, bool) else repr(given)
            raise UserError(f"{key} is {shown}, but {reason}")
