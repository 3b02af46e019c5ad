"""The settings of every command as a table of dotted keys, read from the sources of the classes that take them."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cache

from smoa_lightning.configuration.docstring import first_sentence
from smoa_lightning.configuration.kinds import Kind, kind_of
from smoa_lightning.configuration.source import (
    ClassSource,
    Parameter,
    find_class,
    look_up,
    method_docstring,
    method_parameters,
    parameters,
)

TRAINER = "lightning.pytorch.trainer.trainer.Trainer"
SUBCOMMANDS = ("fit", "validate", "test", "predict")
COMMANDS = (*SUBCOMMANDS, "params")  # those that take the settings
# In the order of the help: what is set most often comes first.
GROUPS = {
    "run": "smoa_lightning.training.cli.RunConfig",
    "data": "smoa_lightning.data.datamodule.TaskDataModule",
    "model": "smoa_lightning.training.module.FineTuneModule",
    "trainer": TRAINER,
    "checkpoint": "smoa_lightning.training.callbacks.adapter_checkpoint.AdapterCheckpoint",
    "cost_monitor": "smoa_lightning.training.callbacks.cost_monitor.CostMonitor",
    "rank_monitor": "smoa_lightning.training.callbacks.rank_monitor.RankMonitor",
    "sample_predictions": "smoa_lightning.training.callbacks.sample_predictions.SamplePredictions",
    "forgetting": "smoa_lightning.training.callbacks.forgetting.Forgetting",
}
# What Lightning's methods take but the command line decides itself; the names are those that LightningCLI skips too.
DECIDED = {"model", "train_dataloaders", "val_dataloaders", "dataloaders", "datamodule", "weights_only"}
CLASS_SETTINGS = ("model.adapter", "model.optimizer")  # a class_path with init_args that can be read as well
DEFAULT_CLASSES = {"model.optimizer": "torch.optim.AdamW"}
# Where what Lightning says is not what the command line makes of it, or too little.
MEANINGS = {
    "ckpt_path": "Checkpoint of a run: fit starts a new run from its weights; validate, test and predict score it.",
    "model.adapter": "The strategy: any peft.PeftConfig by class path, such as smoa_lightning.adapters.SMoAConfig or "
    "peft.LoraConfig; null is full fine-tuning.",
    "trainer.callbacks": "Further callbacks by class path; those below are there anyway.",
}
READABLE = ("peft.", "smoa_lightning.", "torch.optim.")


@dataclass(frozen=True)
class Setting:
    """One setting.

    Attributes:
        key: Dotted key.
        kind: What it takes.
        default: Its default as YAML would say it, empty where there is none.
        help: What it means.
        within: Key of the setting whose dataclass it is a field of, empty otherwise.
    """

    key: str
    kind: Kind
    default: str
    help: str
    within: str = ""


@dataclass(frozen=True)
class Group:
    """Settings under one name, as a class takes them."""

    name: str
    title: str
    settings: tuple[Setting, ...]


@cache
def groups(command: str) -> tuple[Group, ...]:
    """Return the groups of settings of a command: ``fit``, ``validate``, ``test``, ``predict`` or ``params``."""
    trainer = _class(TRAINER)
    own = [
        Setting("config", Kind(open=True), "", "File of settings; later files and flags beat earlier ones."),
        Setting("base", Kind(plain=frozenset({"str"}), nothing=True, text="str | null"), "null", "In a file: another "
                "one, relative to it, that is read before it."),
        Setting("seed_everything", Kind(plain=frozenset({"int", "bool"}), text="int | bool"), "0", "Seed of adapter, "
                "data and dropout; true takes a random one."),
    ]  # fmt: skip
    if command in SUBCOMMANDS:
        taken = method_parameters(trainer, command)
        own += [_setting(name, taken[name]) for name in taken if name not in DECIDED]
    title = method_docstring(trainer, command) if command in SUBCOMMANDS else ""
    found = [Group("", first_sentence(title), tuple(own))]
    return (*found, *(_group(name, _class(class_path)) for name, class_path in GROUPS.items()))


@cache
def class_group(key: str, class_path: str) -> Group | None:
    """Return the settings of a class under the key that takes its ``class_path``; ``None`` if they cannot be read."""
    source = find_class(class_path) if class_path.startswith(READABLE) else None
    taken = parameters(source) if source else None
    if not source or taken is None:
        return None
    names = [name for name in taken if not (key == "model.optimizer" and name == "params")]
    settings = tuple(_setting(f"{key}.init_args.{name}", taken[name]) for name in names)
    return Group(key, f"{class_path}: {first_sentence(source.docstring)}", settings)


def _class(class_path: str) -> ClassSource:
    source = find_class(class_path)
    assert source is not None, f"{class_path} is in no source file"
    return source


def _group(name: str, source: ClassSource) -> Group:
    taken = parameters(source) or {}
    title = first_sentence(source.docstring or method_docstring(source, "__init__"))
    found: list[Setting] = []
    for parameter in taken.values():
        setting = _setting(f"{name}.{parameter.name}", parameter)
        found.append(setting)
        if setting.kind.nested:
            fields = parameters(setting.kind.nested) or {}
            found += [_setting(f"{setting.key}.{f.name}", f, setting.key) for f in fields.values()]
    return Group(name, title, tuple(found))


def _setting(key: str, parameter: Parameter, within: str = "") -> Setting:
    default = DEFAULT_CLASSES.get(key) or _default(parameter)
    return Setting(key, kind_of(parameter), default, MEANINGS.get(key, parameter.help), within)


def _default(parameter: Parameter) -> str:
    """A default as YAML says it; a constant of the module by its value."""
    node = parameter.default
    if isinstance(node, ast.Name) and (found := look_up(parameter.module, node.id)) is not None:
        node = found[1].value if isinstance(found[1], ast.Assign | ast.AnnAssign) else node
    if isinstance(node, ast.Constant):
        return {"None": "null", "True": "true", "False": "false"}.get(str(node.value), str(node.value))
    return ast.unparse(node) if node is not None else ""
