"""The tags of a run's curves in TensorBoard, which sorts its cards by tag. Imports no torch.

The loss comes first, so the first part of every other tag sorts after ``train``. A metric keeps its own name at the end
of the tag: the filter ``selection/acc`` of TensorBoard finds it.
"""

from __future__ import annotations

# First part of a metric's name -> first part of its tag.
GROUPS = {"report": "val_report", "selection": "val_selection", "rank": "update_rank", "cost": "train_cost"}
STEP = "train/step_"  # before the name of what every step logs besides the loss
STEPPED = ("train/gradient_norm", "train/learning_rate")
SINGLE = ("base/", "parameters/")  # single numbers: in the table of results, and in the HPARAMS tab
CONSTANT = "/num_items"


def is_curve(name: str) -> bool:
    """Whether a metric changes in a run.

    >>> is_curve("selection/acc"), is_curve("base/acc"), is_curve("selection/num_items")
    (True, False, False)
    """
    return not (name.startswith(SINGLE) or name.endswith(CONSTANT))


def tag_of(name: str) -> str:
    """Return the tag of a metric.

    >>> tag_of("train/loss"), tag_of("train/gradient_norm"), tag_of("selection/acc"), tag_of("epoch")
    ('train/loss', 'train/step_gradient_norm', 'val_selection/acc', 'train/step_epoch')
    """
    if name in STEPPED or name == "epoch":
        return STEP + name.rpartition("/")[2]
    first, slash, rest = name.partition("/")
    return f"{GROUPS.get(first, first)}{slash}{rest}"


def name_of(tag: str) -> str:
    """Return the metric of a tag; tags of runs before version 0.2 are the names themselves.

    >>> name_of("val_selection/acc"), name_of("train/step_gradient_norm"), name_of("selection/acc")
    ('selection/acc', 'train/gradient_norm', 'selection/acc')
    """
    if tag.startswith(STEP):
        name = tag.removeprefix(STEP)
        return name if name == "epoch" else f"train/{name}"
    first, slash, rest = tag.partition("/")
    names = {group: name for name, group in GROUPS.items()}
    return f"{names.get(first, first)}{slash}{rest}"
