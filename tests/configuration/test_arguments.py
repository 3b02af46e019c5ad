"""Help and argument errors come without torch, and never refuse what the full parser takes."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import peft
import pytest
import torch

import smoa_lightning.adapters as adapters
from smoa_lightning.__main__ import main
from smoa_lightning.common.errors import UserError
from smoa_lightning.configuration import COMMANDS, check_arguments, describe, expand_bases
from smoa_lightning.configuration.check import flags
from smoa_lightning.configuration.settings import class_group, groups

from ..pinned import pinned_versions_only
from .commands import full_parser

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
FILES = sorted(EXPERIMENTS.rglob("*.yaml"))


def keys(parser: Any, command: str) -> set[str]:
    """The keys that take a value; a group's own key, under which a file may be named, is none of them."""
    if command != "params":
        parser = parser._subcommands_action._name_parser_map[command]
    names = {a.dest for a in parser._actions if a.dest.rpartition(".")[2] not in ("help", "print_config")}
    return names - {name.rpartition(".")[0] for name in names}


@pytest.mark.parametrize("command", COMMANDS)
def test_keys_are_those_of_the_full_parser(command: str) -> None:
    ours = {s.key for group in groups(command) for s in group.settings if not s.within}
    assert ours == keys(full_parser(command), command)


def strategies() -> list[str]:
    found = [
        f"{module.__name__}.{name}"
        for module in (peft, adapters)
        for name, member in vars(module).items()
        if isinstance(member, type) and issubclass(member, peft.PeftConfig)
    ]
    return [*found, "smoa_lightning.adapters.adalora.AdaLoraConfig"]


@pinned_versions_only
@pytest.mark.parametrize("class_path", strategies())
def test_strategies_take_what_their_sources_say(class_path: str) -> None:
    module, _, name = class_path.rpartition(".")
    taken = inspect.signature(getattr(sys.modules[module], name)).parameters
    group = class_group("model.adapter", class_path)
    assert group is not None
    assert [s.key.rpartition(".")[2] for s in group.settings] == list(taken)


@pinned_versions_only
@pytest.mark.parametrize("name", ["AdamW", "SGD", "Adam", "RMSprop"])
def test_optimizers_take_what_their_sources_say(name: str) -> None:
    taken = set(inspect.signature(getattr(torch.optim, name)).parameters) - {"params"}
    group = class_group("model.optimizer", f"torch.optim.{name}")
    assert group is not None
    assert {s.key.rpartition(".")[2] for s in group.settings} == taken


@pytest.mark.parametrize("file", FILES, ids=lambda p: str(p.relative_to(EXPERIMENTS)))
def test_shipped_files_pass(file: Path) -> None:
    teacher = ["--model.distillation.teacher", str(EXPERIMENTS)] if file.stem == "distillation" else []  # it names none
    check_arguments("fit", ["--config", str(file), *teacher])
    check_arguments("params", ["--config", str(EXPERIMENTS / "piqa.yaml"), "--config", str(file), *teacher])


@pytest.mark.parametrize("file", sorted(EXPERIMENTS.glob("adapters/*.yaml")), ids=lambda p: p.stem)
def test_resolved_configurations_pass(file: Path, fit_parser: Any, tmp_path: Path) -> None:
    """What a run writes as config.yaml: every setting with its value."""
    parser = fit_parser._subcommands_action._name_parser_map["fit"]
    files = [*expand_bases(["--config", str(EXPERIMENTS / "piqa.yaml")]), "--config", str(file)]
    settings = fit_parser.parse_args(["fit", *files, "--base", "null"]).fit
    (tmp_path / "config.yaml").write_text(parser.dump(settings, skip_validation=True))
    check_arguments("fit", ["--config", str(tmp_path / "config.yaml")])


TAKEN = [
    ["--data.protocol", "null"],
    ["--data.packing", "yes"],
    ["--data.packing=TRUE"],
    ["--data.batch_size", "0x10"],
    ["--data.batch_size", "1_0"],
    ["--data.batch_size", " 4"],
    ["--data.seed=null"],
    ["--model.warmup", "1e-3"],
    ["--model.backbone.init_args.source", "auto"],
    ["--model.backbone", "{source: auto}"],
    ["--model.adapter", "null"],
    ["--model.adapter=LoraConfig", "--model.adapter.r", "4"],
    ["--model.adapter", "peft.LoraConfig", "--model.adapter.r", "4", "--model.adapter.init_args.lora_alpha", "8"],
    ["--model.adapter", '{"class_path": "peft.LoraConfig", "init_args": {"r": 4}}'],
    ["--model.adapter", "smoa_lightning.SMoAConfig"],
    ["--model.adapter", "peft.LoraConfig", "--model.adapter.target_modules+=q_proj"],
    ["--model.optimizer.lr", "1"],
    ["--model.optimizer", "torch.optim.SGD", "--model.optimizer.momentum", "0.9"],
    ["--model.budget", "300k"],
    ["--model.budget.like", "x"],
    ["--trainer.callbacks+=lightning.pytorch.callbacks.Timer"],
    ["--trainer.max_time", "{hours: 1}"],
    ["--trainer.devices", "[0, 1]"],
    ["--trainer.deterministic", "warn"],
    ["--trainer.limit_val_batches", "0.5"],
    ["--trainer.precision", "32"],
    ["--data", "{task: piqa}"],
    ["--data.mixture", "[boolq]"],
    ["--data.mixture+=boolq"],
    ["--data.mixture.boolq", "1"],
    ["--data.fields.question", "q"],
    ["--data.path.train", "x"],
    ["--data.add_bos", "auto"],
    ["--seed_everything", "true"],
]
TAKEN_FILES = [
    "data:\n  batch_size: '3'\n  packing: 'yes'\n",
    "data.batch_size: 3\n",
    "trainer:\n  callbacks+: []\n",
    "model:\n  backbone:\n    class_path: smoa_lightning.backbones.backbone.BackboneConfig\n"
    "    init_args: {dtype: bfloat16}\n",
    "model:\n  adapter:\n    class_path: peft.LoraConfig\n    init_args:\n      r: 4\n    dict_kwargs:\n      z: 4\n",
    "model:\n  warmup: 10\n  decay: constant\n",
]


@pytest.mark.parametrize("arguments", TAKEN, ids=" ".join)
def test_what_the_full_parser_takes_passes(arguments: list[str], fit_parser: Any) -> None:
    fit_parser.parse_args(["fit", *arguments])
    check_arguments("fit", arguments)


@pytest.mark.parametrize("text", TAKEN_FILES)
def test_files_that_the_full_parser_takes_pass(text: str, fit_parser: Any, tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    fit_parser.parse_args(["fit", "--config", str(file)])
    check_arguments("fit", ["--config", str(file)])


REFUSED = [
    (["--data.protoc", "generation"], "'data.protoc' (a flag cannot be shortened); the nearest key is data.p"),
    (["--trainer.max_epoch", "1"], "(a flag cannot be shortened); the nearest keys are trainer.max_epochs"),
    (["--data.batch=4"], "'data.batch' (a flag cannot be shortened); the nearest keys are data.batch_size"),
    (["--data.protocl", "x"], "unknown key 'data.protocl'; the nearest key is data.protocol"),
    (
        ["--data.protocol", "likelyhood"],
        "data.protocol is 'likelyhood', but takes likelihood, generation, classification, regression or null; the",
    ),
    (["--data.packing", "1"], "data.packing is '1', but takes true or false"),
    (["--data.batch_size", "4.0"], "data.batch_size is '4.0', but takes a whole number"),
    (["--data.batch_size", "null"], "data.batch_size is 'null', but takes a whole number"),
    (["--data.batch_size", "x", "--data.batch_size", "4"], "data.batch_size is 'x'"),
    (["--model.warmup", "1/2"], "model.warmup is '1/2', but takes a number"),
    (["--trainer.max_epochs", "one"], "is 'one', but takes a whole number (-1 or at least 1) or null"),
    (["--trainer.precision", "17"], "16-mixed"),
    (["--model.backbone.sourc", "auto"], "nearest keys are model.backbone.source"),
    (["--model.backbone.source", "web"], "takes auto, hub, local or embedded"),
    (["--model.backbone", "{sourc: auto}"], "model.backbone.source"),
    (["--model.adapter", "peft.LorraConfig"], "no strategy 'peft.LorraConfig'; the nearest classes in peft are LoraC"),
    (["--model.adapter=peft.LoraConfig", "--model.adapter.lora_alph=8"], "are model.adapter.lora_alpha, "),
    (["--model.adapter=peft.LoraConfig", "--model.adapter.r", "x"], "init_args.r is 'x', but takes a whole number"),
    (["--model.adapter", '{"class_path":"peft.LoraConfig","init_args":{"lora_alph":4}}'], "model.adapter.lora_alpha"),
    (["--model.optimizer.momentm", "1"], "of torch.optim.AdamW"),
    (["--data.batch_size", "x"], "data.batch_size is 'x', but takes a whole number (at least 1)"),
    (["--model.warmup", "x"], "model.warmup is 'x', but takes a number (at least 0)"),
    (["piqa"], "'piqa' is not the value of a flag: write --config piqa"),
    (["adapters/lora"], "'adapters/lora' is not the value of a flag: write --config adapters/lora"),
    (["--data.seed", "1", "lora"], "'lora' is not the value of a flag: write --config lora"),
    (["lora_or_not"], "'lora_or_not' is not the value of a flag: write --KEY VALUE"),
    (["experiments/piqa.yaml"], "is not the value of a flag: write --config experiments/piqa.yaml"),
]


@pinned_versions_only
@pytest.mark.parametrize(("arguments", "words"), REFUSED, ids=[" ".join(a) for a, _ in REFUSED])
def test_what_is_refused_early_the_full_parser_refuses_too(arguments: list[str], words: str, fit_parser: Any) -> None:
    with pytest.raises(UserError) as refused:
        check_arguments("fit", arguments)
    assert words in str(refused.value)
    with pytest.raises(UserError):
        fit_parser.parse_args(["fit", *arguments])


REFUSED_FILES = [
    (
        "data:\n  task: piqa\n  batch_siz: 3\n",
        "line 3: unknown key 'data.batch_siz'; the nearest keys are data.ba",
    ),
    ("data:\n  batch_size: 3.0\n", "line 2: data.batch_size is 3.0, but takes a whole number"),
    ("data:\n  packing: 1\n", "line 2: data.packing is 1"),
    ("data:\n  task: 5\n", "line 2: data.task is 5, but takes text"),
    ("model:\n  decay: 5\n", "line 2: model.decay is 5"),
    ("trainer:\n  max_epochs: 1.5\n", "line 2: trainer.max_epochs is 1.5"),
    ("run:\n  name: 5\n", "line 2: run.name is 5"),
    ("trainr:\n  max_epochs: 1\n", "line 1: unknown key 'trainr'; the nearest key is trainer"),
    ("- 1\n", "holds no settings"),
    ("", "holds no settings"),
    ("# nothing\n", "holds no settings"),
    ("model:\n  backbone:\n    sourc: auto\n", "line 3: unknown key 'model.backbone.sourc'"),
    (
        "model:\n  adapter:\n    class_path: peft.LoraConfig\n    init_args:\n      lora_alph: 4\n",
        "line 5: unknown key",
    ),
    ("model:\n  adapter:\n    class_path: peft.LoraConfig\n    init_args:\n      r: x\n", "line 5: model.adapter"),
    ("model:\n  adapter:\n    class_path: peft.LorraConfig\n", "line 3: model.adapter: there is no strategy"),
]


@pinned_versions_only
@pytest.mark.parametrize(("text", "words"), REFUSED_FILES)
def test_files_that_are_refused_early_the_full_parser_refuses_too(
    text: str, words: str, fit_parser: Any, tmp_path: Path
) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    with pytest.raises(UserError) as refused:
        check_arguments("fit", ["--config", str(file)])
    assert str(file) in str(refused.value)
    assert words in str(refused.value)
    with pytest.raises(UserError):
        fit_parser.parse_args(["fit", "--config", str(file)])


@pytest.mark.parametrize("key", ["data.batch_size", "data.packing", "model.decay", "model.backbone.dtype", "run.root"])
def test_null_is_refused_early_where_it_means_nothing(key: str, tmp_path: Path) -> None:
    """The full parser takes it from a file, and the run breaks later."""
    (tmp_path / "settings.yaml").write_text(f"{key}: null\n")
    with pytest.raises(UserError, match=f"line 1: {key} is None, but takes"):
        check_arguments("fit", ["--config", str(tmp_path / "settings.yaml")])


@pytest.mark.parametrize(
    "text", ["run.name: 2020-01-01\n", "data.seed: null\n", "trainer: {max_steps: -1, callbacks: null}\n"]
)
def test_dates_are_texts_and_null_is_taken_where_it_is_the_default(text: str, fit_parser: Any, tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    fit_parser.parse_args(["fit", "--config", str(file)])
    check_arguments("fit", ["--config", str(file)])


@pinned_versions_only
def test_a_later_class_is_the_one_whose_settings_count(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "model: {adapter: {class_path: peft.LoraConfig, init_args: {lora_alpha: 4}}}\nbase: b.yaml\n"
    )
    (tmp_path / "b.yaml").write_text("model: {adapter: {class_path: peft.HiraConfig, init_args: {r: 4}}}\n")
    check_arguments("fit", ["--config", str(tmp_path / "a.yaml"), "--model.adapter.lora_dropout", "0.1"])
    with pytest.raises(UserError, match=r"'model\.adapter\.hira_dropout' of peft\.LoraConfig"):
        check_arguments("fit", ["--config", str(tmp_path / "a.yaml"), "--model.adapter.hira_dropout", "0.1"])


def test_missing_tasks_and_checkpoints_are_refused() -> None:
    with pytest.raises(UserError, match="did you mean piqa"):
        check_arguments("fit", ["--data.task", "pika"])
    check_arguments("fit", ["--data.task", "pika", "--data.task", "piqa"])
    with pytest.raises(UserError, match="the checkpoint '/nowhere' does not exist"):
        check_arguments("test", ["--ckpt_path", "/nowhere"])
    with pytest.raises(UserError, match="test needs --ckpt_path"):
        check_arguments("test", ["--data.task", "piqa"])
    check_arguments("test", ["--data.task", "piqa", "--model.frozen", "true"])
    with pytest.raises(UserError, match=r"unknown key 'ckpt_pat' .*; the nearest key is ckpt_path"):
        check_arguments("test", ["--ckpt_pat", "/nowhere"])


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_every_setting(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    shown = capsys.readouterr().out
    for group in groups(command):
        for setting in group.settings:
            assert f"\n  --{setting.key} " in shown
            assert setting.help
    assert "--data.batch_size int = 32 " in shown
    assert "--data.pad_multiple int = 1 " in shown


@pinned_versions_only
def test_help_shows_the_settings_of_a_named_strategy() -> None:
    assert "--model.adapter.num_subspaces" not in describe("fit", [])
    for named in (["--model.adapter", "SMoAConfig"], ["--model.adapter", "peft.LoraConfig", "--oh", "no"]):
        assert "--model.adapter.r int = 8 " in describe("fit", [*named, "--help"])


def test_help_shows_what_the_given_files_and_flags_make() -> None:
    shown = describe("fit", ["--config", str(EXPERIMENTS / "piqa.yaml"), "--data.batch_size", "7", "--help"])
    for line in ("--model.adapter.r int = 32 ", "--model.adapter.num_subspaces int = 2 ", "--data.batch_size int = 7 "):
        assert line in shown
    assert "smoa_lightning.adapters.SMoAConfig" in shown
    assert "= peft.HiraConfig" in describe("fit", ["--model.adapter", "peft.HiraConfig"])


def test_no_answer_imports_torch() -> None:
    lines = [["--help"], ["--version"], ["fitt"], ["rank"], ["generate", "/nowhere", "--prompt", "x"]]
    lines += [[command, "--data.protocl", "x"] for command in COMMANDS]
    lines += [["fit", "--config", str(EXPERIMENTS / "piqa.yaml"), "--model.adapter.rank", "4"]]
    lines += [["fit", "--help"], ["fit", "--data.task", "pika"], ["test"], ["fit", "--config", "/nowhere.yaml"]]
    code = f"""
import sys
from smoa_lightning.__main__ import main
for line in {lines!r}:
    status = main(line)
    assert status == (0 if line[-1] in ("--help", "--version") else 2), line
    heavy = {{"torch", "lightning", "transformers", "peft", "numpy"}} & sys.modules.keys()
    assert not heavy, (line, heavy)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("smoa_lightning: ") == len(lines) - 3


def test_flags_are_split_as_argparse_does() -> None:
    split = list(flags(["--a", "1", "--b=2=3", "--c", "--d", "-1", "-h", "--e"]))
    assert split == [("a", "1"), ("b", "2=3"), ("c", None), ("d", "-1"), ("e", None)]


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_a_run_folder_without_a_flag_names_its_checkpoint(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best = tmp_path / "checkpoints" / "best.ckpt"
    best.parent.mkdir()
    best.touch()
    assert main([command, str(tmp_path)]) == 2
    assert capsys.readouterr().err.endswith(f"is not the value of a flag; did you mean --ckpt_path {best}?\n")
