"""Study files: the order in which files and flags replace each other, and one sentence for each error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from smoa_lightning.ablation.study.expand import load_study
from smoa_lightning.common.errors import UserError
from smoa_lightning.configuration.check import flags

from ..pinned import pinned_versions_only

EXPERIMENTS = Path(__file__).parents[2] / "experiments"

BASE = f"""\
base: [{EXPERIMENTS}/piqa.yaml, {EXPERIMENTS}/backbones/embedded.yaml]
axes:
  partition: [none, spectral_blocks]
  num_subspaces: [1, 2]
drop:
  - {{partition: none, num_subspaces: '>1'}}
baseline: {{partition: none}}
seeds: [3, 5]
"""


def written(folder: Path, text: str, name: str = "study.yaml") -> Path:
    file = folder / name
    file.write_text(text)
    return file


# ------------------------------------------------------------------------------------------- order of files and flags


def test_later_files_and_flags_win(tmp_path: Path) -> None:
    file = written(
        tmp_path, BASE + "overrides: {data.batch_size: 8, r: 4}\nsearch: {parameters: {lr: {choices: [1]}}}\n"
    )
    over = written(tmp_path, "overrides:\n  data: {batch_size: 16}\nseeds: 4\naxes: {partition: null}\n", "over.yaml")
    given = list(flags(["--r", "6", "--search.trials", "2", "--axes.num_subspaces", "[1, 2, 4]", "--data.task=boolq"]))
    study = load_study([file, over], [("drop", "[]"), ("baseline", "null"), *given])
    assert [axis.name for axis in study.axes] == ["num_subspaces"]
    assert [cell.name for cell in study.cells] == ["num_subspaces=1", "num_subspaces=2", "num_subspaces=4"]
    assert study.seeds == (0, 1, 2, 3)
    assert study.search is not None
    assert study.search.trials == 2
    settings = study.cells[0].settings
    assert (settings["data"]["batch_size"], settings["data"]["task"]) == (16, "boolq")
    assert settings["model"]["adapter"]["init_args"]["r"] == 6


def test_files_are_found_from_the_study_and_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "studies").mkdir()
    (tmp_path / "near.yaml").write_text("data: {task: piqa}\nmodel: {adapter: null}\n")
    text = "base: [{}]\naxes: {{batch_size: [4, 8]}}\n"
    file = written(tmp_path / "studies", text.format("../near.yaml"))
    assert load_study([file]).cells[0].files == (tmp_path / "near.yaml",)
    monkeypatch.chdir(tmp_path)
    file = written(tmp_path / "studies", text.format("near.yaml"))
    assert load_study([file]).cells[0].files == (tmp_path / "near.yaml",)


SAME = f"""\
# the same study, written in a different way
seeds: 
  - 3
  - 5
baseline: {{partition:   none}}
drop: [{{num_subspaces: ">1", partition: "none"}}]
axes:
  model.adapter.init_args.num_subspaces: [1, 2]
  model.adapter.partition: ["none", 'spectral_blocks']
base: ["{EXPERIMENTS}/piqa.yaml", "{EXPERIMENTS}/backbones/embedded.yaml"]
"""


def test_signatures_do_not_depend_on_how_a_study_is_written(tmp_path: Path) -> None:
    first = load_study([written(tmp_path, BASE)])
    text = SAME.replace("{partition:   none}", "{model.adapter.partition: none}").replace(
        'num_subspaces: ">1", partition: "none"', 'num_subspaces: ">1", partition: none'
    )
    second = load_study([written(tmp_path, text)])
    assert {cell.signature for cell in first.cells} == {cell.signature for cell in second.cells}
    assert {run.signature for run in first.final_runs()} == {run.signature for run in second.final_runs()}
    assert [c.name for c in second.cells] == [
        "num_subspaces=1,partition=none",
        "num_subspaces=1,partition=spectral_blocks",
        "num_subspaces=2,partition=spectral_blocks",
    ]


def test_numbers_are_the_same_in_all_notations(tmp_path: Path) -> None:
    texts = [
        "lr: 1e-2\n  warmup: 100",
        "model.optimizer.lr: 0.01\n  warmup: 1.0e+2",
        "optimizer.lr: 1.0e-2\n  model.warmup: 100.0",
    ]
    found = {load_study([written(tmp_path, f"{BASE}overrides:\n  {text}\n")]).cells[0].signature for text in texts}
    assert len(found) == 1
    other = f"{BASE}overrides: {{lr: 1e-2, warmup: 100, limit_val_batches: VALUE}}\n"
    whole, one = (load_study([written(tmp_path, other.replace("VALUE", v))]).cells[0].signature for v in ("1.0", "1"))
    assert whole != one  # all batches, and one batch


# ------------------------------------------------------------------------------------------------------- bad input


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"axis": {}}, ": a study has no key 'axis'; the nearest key is axes"),
    ({"name": "a/b"}, "name is 'a/b', but may have only letters"),
    ({"base": None}, "base must be a list of experiment files"),
    ({"base": ["piqqa.yaml"]}, "base: the file 'piqqa.yaml' does not exist"),
    ({"axes": None}, "a study needs axes"),
    (
        {"axes": {"num_subspace": [1]}},
        "unknown key 'num_subspace'; the nearest key is model.adapter.init_args.num",
    ),
    (
        {"axes": {"model.adapter.init_args.rr": [1]}},
        "unknown key 'model.adapter.init_args.rr'; the nearest keys are",
    ),
    ({"axes": {"data.protocl": ["x"]}}, "unknown key 'data.protocl'; the nearest key is data.protocol"),
    (
        {"axes": {"seed": [1, 2]}},
        "'seed' may mean data.seed or model.adapter.init_args.seed: write the full key "
        "(seed_everything: the study's 'seeds' decide it)",
    ),
    ({"axes": {"seed_everything": [1, 2]}}, "seed_everything cannot be set in a study: the study's 'seeds' decide it"),
    ({"axes": {"x": [{"a": {"seed_offset": -1}}]}}, "seed_offset is -1, but must be a whole number from 0 on"),
    ({"axes": {"r": []}}, "axis 'r' has no values"),
    ({"axes": {"r": [4, "x"]}}, "model.adapter.init_args.r is 'x', but takes a whole number"),
    ({"axes": {"r": [4, 4]}}, "axis 'r' has the value '4' twice"),
    ({"axes": {"r": [4, [8]]}}, "model.adapter.init_args.r is [8], but takes a whole number"),
    ({"axes": {"m": [{"model.adapter": "lora.yaml"}]}}, "model.adapter is the file 'lora.yaml', but a file cannot"),
    ({"axes": {"partition": ["spectral_block"]}}, "the nearest is spectral_blocks"),
    ({"axes": {"x": [{"a": {"rank": 4}}]}}, "unknown key 'rank'"),
    ({"axes": {"x": {"a": {"r": 4}, "b": 3}}}, "'b' of axis 'x' is 3, but must be keys and values"),
    ({"axes": {"x": ["lorra.yaml"]}}, "axis 'x': the file 'lorra.yaml' does not exist"),
    (
        {"axes": {"r": [4], "x": [{"a": {"model.adapter.r": 4}}]}},
        "the axes 'r' and 'x' both set model.adapter.init_args.r",
    ),
    pytest.param(
        {"axes": {"adapter": ["peft.LorraConfig"]}},
        "cell adapter=LorraConfig: model.adapter: there is no strategy",
        marks=pinned_versions_only,
    ),
    ({"axes": {"task": ["piqa", "pika"]}}, "cell task=pika: data.task: unknown task 'pika'; did you mean piqa"),
    ({"axes": {"optimizer.lr": [{"config": "x.yaml"}]}}, "config: the file 'x.yaml' does not exist"),
    ({"zip": [["partition", "K"]]}, "zip has 'K', which is not an axis"),
    ({"zip": [["partition"]]}, "zip must be a list of lists of two or more axes"),
    (
        {"zip": ["partition", "num_subspaces"], "axes": {"partition": ["none"], "num_subspaces": [1, 2]}},
        "same number of",
    ),
    (
        {"zip": [["partition", "num_subspaces"], ["num_subspaces", "partition"]]},
        "axis 'num_subspaces' is in zip twice",
    ),
    ({"drop": [{"partitoin": "none"}]}, "is not an axis or a configuration key; the nearest axis is partition"),
    ({"drop": [{"partition": "nne"}]}, "axis 'partition' has no value 'nne'; the nearest is none"),
    ({"drop": [{"num_subspaces": ">x"}]}, "'x' is not an axis"),
    ({"drop": [{"num_subspaces": "=1"}]}, "'=1' is not a comparison"),
    ({"drop": [{"partition": ">1"}]}, "partition is 'none' in a cell, but '>' can compare only numbers"),
    ({"drop": ["partition"]}, "a condition must be {KEY: VALUE}"),
    ({"drop": [{"num_subspaces": [1, 2]}]}, "no cell is left: the conditions drop all 4 cells"),
    ({"baseline": {"partitions": "none"}}, "baseline: 'partitions' is not an axis; the nearest axis is partition"),
    ({"baseline": {"partition": "non"}}, "baseline: axis 'partition' has no value 'non'; the nearest is none"),
    (
        {"baseline": {"partition": "none", "num_subspaces": 2}},
        "no cell; the nearest cell is partition=none,num_subspaces=1",
    ),
    ({"baseline": {"partition": "spectral_blocks"}}, "the baseline partition=spectral_blocks matches 2 cells"),
    ({"seeds": [1, 1]}, "seeds has a seed twice"),
    ({"seeds": 0}, "seeds is 0, but must be the number of seeds, at least 1, or a list of whole numbers of at least 0"),
    ({"objective": {"metric": "accuracy"}}, "unknown metric 'accuracy'; the nearest are acc"),
    ({"objective": {"metric": "acc", "direction": "max"}}, "direction is 'max', but must be maximize or minimize"),
    (
        {"objective": {"metric": "nll", "direction": "maximize"}},
        "direction is maximize, but for nll it must be minimize",
    ),
    ({"objective": "bleu"}, "the objective bleu is not measured on the report rows of piqa, which have acc"),
    ({"budget": "many"}, "budget is 'many', but must be a number of trainable parameters"),
    ({"budget": {"like": "lorra.yaml"}}, "budget.like: the file 'lorra.yaml' does not exist"),
    (
        {"budget": "80k", "axes": {"r": [4, 8]}},
        "axis 'r' sets model.adapter.init_args.r, but the budget 80k decides the size",
    ),
    (
        {"axes": {"x": {"a": {"model.budget": "80k", "r": 4}, "b": {"model.budget": None, "r": 8}}}},
        "axis 'x' sets model.adapter.init_args.r, but axis 'x' decides the size",
    ),
    ({"budget": "80k", "overrides": {"r": 4}}, "an override sets model.adapter.init_args.r, but the budget 80k"),
    ({"budget": "80k", "overrides": {"model.budget": "90k"}}, "the overrides set model.budget to '90k'"),
    ({"budget": "80k", "axes": {"model.budget": ["80k"]}}, "sets model.budget, but the study has one budget"),
    (
        {"budget": "80k", "axes": {"x": {"full": {"adapter": None}}}},
        "the cell has no adapter, so it cannot meet the budget 80k",
    ),
    (
        {"overrides": {"partition": "none"}},
        "axis 'partition' and the overrides both set model.adapter.init_args.partition",
    ),
    ({"overrides": {"data.batch_siz": 4}}, "unknown key 'data.batch_siz'; the nearest keys are data.batch_size"),
    ({"overrides": {"data.batch_size": 4.5}}, "data.batch_size is 4.5, but takes a whole number"),
    ({"overrides": {"run.name": "x"}}, "run.name cannot be set in a study"),
    ({"overrides": ["x"]}, "overrides must be configuration keys and values"),
    ({"retries": -1}, "retries is -1, but must be a whole number"),
    ({"keep": "bst"}, "keep is 'bst', but must be best or none; the nearest is best"),
    (
        {"axes": {"x": [{"a": {"r": 8}}, {"b": {"model.adapter": {"r": 8}}}]}},
        "the cells x=a and x=b have the same settings",
    ),
]
LR = {"lr": {"low": 1e-4, "high": 1e-1, "log": True}}
WRONG_SEARCHES: list[tuple[dict[str, Any], str]] = [
    ({"parameters": LR, "trials": 2, "sampler": "tpee"}, "unknown sampler 'tpee'; the nearest is tpe"),
    ({"parameters": LR, "trials": 2, "pruner": {"name": "none", "x": 1}}, "none has no option 'x'; it has no options"),
    ({"parameters": LR, "trials": 2, "pruner": "hyperbnd"}, "unknown pruner 'hyperbnd'; the nearest is hyperband"),
    (
        {"parameters": LR, "trials": 2, "sampler": {"name": "tpe", "n_start_trials": 3}},
        "no option 'n_start_trials'; the near",
    ),
    ({"parameters": LR, "trials": 2, "sampler": "grid"}, "so lr needs choices or a step"),
    ({"parameters": {"lr": {"choices": [1e-3, 1e-2]}}, "trials": 3, "sampler": "grid"}, "only 2 combinations"),
    (
        {"parameters": {"lr": {"choices": [1e-3]}}, "trials": 3, "sampler": "cmaes"},
        "lr has choices; tpe can search both",
    ),
    ({"parameters": LR}, "search.trials is None, but must be a whole number"),
    ({"parameters": {}}, "a search needs 'parameters'"),
    ({"parameter": LR}, "unknown key 'search.parameter'; the nearest is search.parameters"),
    ({"parameters": {"lrr": LR["lr"]}, "trials": 2}, "unknown key 'lrr'"),
    ({"parameters": {"lr": [1, 2]}, "trials": 2}, "lr must be a range"),
    ({"parameters": {"lr": {"low": 1, "hihg": 2}}, "trials": 2}, "lr: unknown key 'hihg'; the nearest is high"),
    ({"parameters": {"lr": {"low": 1, "high": 1}}, "trials": 2}, "low must be smaller than high"),
    ({"parameters": {"lr": {"low": 0, "high": 1}}, "trials": 2}, "init_args.lr is 0, but must be above 0"),
    (
        {"parameters": {"weight_decay": {"low": 0, "high": 1, "log": True}}, "trials": 2},
        "a logarithmic range needs a low above 0",
    ),
    ({"parameters": {"r": {"low": 4, "high": 8.5}}, "trials": 2}, "init_args.r is 8.5, but takes a whole number"),
    ({"parameters": {"r": {"choices": [4, "x"]}}, "trials": 2}, "init_args.r is 'x', but takes a whole number"),
    ({"parameters": {"lr": {"choices": [1, 1]}}, "trials": 2}, "choices have 1 twice"),
    ({"parameters": {"lr": LR["lr"], "optimizer.lr": LR["lr"]}, "trials": 2}, "lr are the same setting"),
    ({"parameters": {"num_subspaces": {"choices": [1, 2]}}, "trials": 2}, "num_subspaces is searched, but an axis or"),
    ({"parameters": LR, "trials": 2, "seeds": [3, 9]}, "seed 3 is in search.seeds and in seeds"),
    ({"parameters": LR, "trials": 2, "objective": "general_perplexity"}, "not measured on the selection rows of piqa"),
    (
        {"parameters": {"lr": {**LR["lr"], "only": {"partition": "none"}}}, "trials": 2},
        "no parameter of the search applies to this cell",
    ),
    ({"parameters": {"momentum": {"low": 0.0, "high": 0.9}}, "trials": 2}, "unknown key 'momentum'"),
]
WRONG_SEARCHES += [
    ({"parameters": LR, "trials": 10**9}, "search.trials is 1,000,000,000, but a cell takes at most 10,000"),
]
TOO_LARGE: list[tuple[dict[str, Any], str]] = [
    ({"seeds": 10**9}, "seeds has 1,000,000,000 seeds, but a study takes at most 10,000"),
    ({"seeds": [*range(10_001)]}, "seeds has 10,001 seeds"),
    ({"axes": {"r": [*range(1, 102)], "data.batch_size": [*range(1, 102)]}}, "axes have 10,201 combinations"),
    ({"axes": {"m": [{"x" * 250: {"r": 2}}]}}, "have names of up to 259 bytes, but the name of a folder has at most"),
    ({"axes": {"m": [{"ü" * 125: {"r": 2}}]}}, "names of up to 259 bytes"),
]
CASES_OF_SEARCH = [({"search": search}, words) for search, words in WRONG_SEARCHES]


@pytest.mark.parametrize(("change", "words"), WRONG + TOO_LARGE + CASES_OF_SEARCH, ids=lambda v: str(v)[:70])
def test_each_error_is_one_sentence(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    content = yaml.safe_load(BASE) | change
    if "axes" in change and not {"drop", "baseline"} & change.keys():
        content.pop("drop"), content.pop("baseline")  # they need the axes of BASE
    file = written(tmp_path, yaml.safe_dump(content, sort_keys=False))
    with pytest.raises(UserError) as refused:
        load_study([file])
    assert words in str(refused.value)
    assert str(file) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_message_names_the_line_of_the_error(tmp_path: Path) -> None:
    file = written(tmp_path, BASE.replace("[1, 2]", "[1, two]"))
    with pytest.raises(UserError, match=r"study\.yaml, line 4: model\.adapter\.init_args\.num_subspaces is 'two'"):
        load_study([file])
    over = written(tmp_path, "# an overlay\noverrides:\n  data.batch_siz: 4\n", "over.yaml")
    with pytest.raises(UserError, match=r"over\.yaml, line 3: unknown key 'data\.batch_siz'"):
        load_study([written(tmp_path, BASE), over])
    with pytest.raises(UserError, match=r"^--seeds: seeds is 'x'"):
        load_study([written(tmp_path, BASE)], [("seeds", "x")])
    with pytest.raises(UserError, match=r"^--data\.tsk: unknown key 'data\.tsk'; the nearest setting is data\.task"):
        load_study([written(tmp_path, BASE)], [("data.tsk", "x")])
    with pytest.raises(UserError, match=r"^--sedes: unknown key 'sedes'; the nearest key of a study is seeds; "):
        load_study([written(tmp_path, BASE)], [("sedes", "3")])
    with pytest.raises(
        UserError, match=r"^--serach\.trials: .*'serach.trials'; the nearest key of a study is search; "
    ):
        load_study([written(tmp_path, BASE)], [("serach.trials", "3")])
    with pytest.raises(UserError, match=r"^--seeds needs a value"):
        load_study([written(tmp_path, BASE)], [("seeds", None)])
    twice = r"study\.yaml, line 9: the key 'seeds' appears twice; the first is in line 8"
    with pytest.raises(UserError, match=twice):
        load_study([written(tmp_path, BASE + "seeds: 3\n")])


def test_files_that_are_not_study_files(tmp_path: Path) -> None:
    for text in ("", "- 1\n", "text\n"):
        with pytest.raises(UserError, match="is not a study file: it needs the keys 'base' and 'axes'"):
            load_study([written(tmp_path, text)])
    with pytest.raises(UserError, match=r"--config: the file .* does not exist"):
        load_study([tmp_path / "none.yaml"])
    with pytest.raises(UserError, match="is not valid YAML"):
        load_study([written(tmp_path, "axes: [\n")])
    with pytest.raises(UserError, match="ablate needs a study file"):
        load_study([])
