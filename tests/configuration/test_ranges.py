"""Settings without a meaning are refused with their valid range, by the early check and by the real parser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.cli import LightningArgumentParser

from smoa_lightning.common.errors import UserError
from smoa_lightning.configuration import check_arguments, with_full_keys
from smoa_lightning.configuration.parser import OneSentenceParser
from smoa_lightning.configuration.ranges import RANGES, Range
from smoa_lightning.configuration.settings import groups
from smoa_lightning.data.datamodule import TaskDataModule
from smoa_lightning.training.cli import FineTuneCLI
from smoa_lightning.training.module import FineTuneModule
from tests.pinned import pinned_versions_only

SEED = "must be at least 0 and at most 4294967295"
REFUSED = [
    ("--seed_everything -1", f"seed_everything is -1, but {SEED}"),
    ("--seed_everything 4294967296", f"seed_everything is 4294967296, but {SEED}"),
    ("--model.adapter_seed -2", f"model.adapter_seed is -2, but {SEED}"),
    ("--data.seed -1", f"data.seed is -1, but {SEED}"),
    ("--model.warmup -1", "model.warmup is -1, but must be at least 0"),
    ("--model.warmup .inf", "model.warmup is inf, but must be a finite number, at least 0"),
    ("--model.warmup 1e9 --trainer.max_steps 10", "set model.warmup to at most 10"),
    ("--model.optimizer.lr 0", "model.optimizer.init_args.lr is 0, but must be above 0"),
    ("--model.optimizer.lr=-1e-3", "model.optimizer.init_args.lr is -0.001, but must be above 0"),
    ("--model.optimizer.init_args.lr .nan", "lr is nan, but must be a finite number, above 0"),
    ("--model.optimizer.weight_decay -1", "weight_decay is -1, but must be at least 0"),
    ("--trainer.accumulate_grad_batches 0", "must be at least 1 and at most 2147483647"),
    ("--trainer.accumulate_grad_batches -3", "must be at least 1 and at most 2147483647"),
    ("--trainer.gradient_clip_val .nan", "must be a finite number, at least 0"),
    ("--trainer.gradient_clip_val -1", "trainer.gradient_clip_val is -1, but must be at least 0"),
    ("--trainer.max_epochs 0", "trainer.max_epochs is 0, but must be -1 or at least 1"),
    ("--trainer.max_epochs -2", "trainer.max_epochs is -2, but must be -1 or at least 1"),
    ("--trainer.max_steps 0", "trainer.max_steps is 0, but must be -1 or at least 1"),
    ("--trainer.max_epochs -1", "training would never end: set one of them to at least 1"),
    ("--trainer.val_check_interval 0", "trainer.val_check_interval is 0, but must be above 0"),
    ("--trainer.val_check_interval 1.5", "must be a share from 0 to 1 or a whole number of batches"),
    ("--trainer.limit_train_batches 2.5", "must be a share from 0 to 1 or a whole number of batches"),
    ("--trainer.check_val_every_n_epoch 3 --trainer.max_epochs 2", "no adapter would be selected: set it to at most 2"),
    ("--trainer.precision 64-true", "takes 32-true, bf16-mixed or 16-mixed"),
    ("--trainer.precision bf16-true", "takes 32-true, bf16-mixed or 16-mixed"),
    ("--trainer.precision 16-true", "takes 32-true, bf16-mixed or 16-mixed"),
    ("--trainer.precision 64", "takes 32-true, bf16-mixed or 16-mixed"),
    ("--trainer.precision 16-mixed --trainer.accelerator cpu", "the CPU has no float16 training: set it to bf16-mixed"),
    (
        "--trainer.precision 16-mixed --model.adapter peft.AdaLoraConfig --model.adapter.total_step 9",
        "AdaLoRA takes its importances from every step",
    ),
    ("--trainer.strategy ddp_spawn", "trainer.strategy is 'ddp_spawn', but takes auto, ddp"),
    ("--trainer.strategy ddp_notebook_find_unused_parameters_true", "but takes auto, ddp"),
    ("--trainer.num_nodes 2", "start it with torchrun or srun on each of them, or set it to 1"),
    ("--trainer.devices 2147483648", "trainer.devices is 2147483648, but must be -1 or at least 1 and at most 4096"),
    ("--trainer.devices 0", "trainer.devices is 0, but must be -1 or at least 1"),
    ("--trainer.num_nodes 0", "trainer.num_nodes is 0, but must be at least 1"),
    ("--data.pad_multiple 1000000000", "must be at least 1 and at most data.max_length, which is 512"),
    ("--data.pad_multiple 0", "data.pad_multiple is 0, but must be at least 1"),
    ("--data.num_workers 10000", "data.num_workers is 10000, but must be at least 0 and at most 512"),
    (
        "--data.batch_size 1" + 3000 * "0",
        "data.batch_size is a whole number of more than 30 digits, but must be at least 1",
    ),
    ("--model.backbone.attn_implementation flash_attention_2", "the library flash_attn is not installed; 'sdpa'"),
    ("--model.optimizer.lr null", "model.optimizer.init_args.lr is None, but takes a number above 0"),
    ("--run.root null", "run.root is None, but takes the name of a folder, such as runs"),
    ("--seed_everything false", "seed_everything is false, but every run has a seed: set it to a number"),
    ("--checkpoint.every_n_steps 0", "checkpoint.every_n_steps is 0, but must be at least 1"),
]


@pinned_versions_only
@pytest.mark.parametrize(("words", "message"), REFUSED, ids=[words[:60] for words, _ in REFUSED])
def test_early_check_and_parser_refuse_with_the_valid_range(
    words: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smoa_lightning.configuration.combinations.LAUNCHERS", ())
    with pytest.raises(UserError) as early:
        check_arguments("fit", words.split())
    assert message in str(early.value)
    with pytest.raises(UserError) as late:
        FineTuneCLI(["fit", *words.split()])
    assert message.rpartition(", but ")[2] in str(late.value)


@pytest.mark.parametrize(
    "words",
    [
        "--trainer.max_epochs -1 --trainer.max_steps 5",
        "--trainer.val_check_interval 3 --trainer.check_val_every_n_epoch null",
        "--trainer.check_val_every_n_epoch 3 --trainer.max_epochs 2 --data.selection_rows 0",
        "--seed_everything 4294967295",
        "--seed_everything true",
        "--trainer.precision bf16-mixed",
        "--trainer.gradient_clip_val 0",
        "--model.warmup 10 --trainer.max_steps 10",
        "--model.optimizer.lr 1",
        "--data.pad_multiple 512",
        "--trainer.limit_val_batches 1.0",
    ],
)
def test_the_nearest_valid_values_pass(words: str) -> None:
    check_arguments("fit", words.split())


def test_a_file_is_named_with_the_line(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "model:\n  optimizer:\n    class_path: torch.optim.SGD\n    init_args: {lr: .nan}\n"
    )
    with pytest.raises(UserError, match=r"a\.yaml, line 4: model\.optimizer\.init_args\.lr is nan"):
        check_arguments("fit", ["--config", str(tmp_path / "a.yaml")])


def test_numbers_that_python_does_not_read_are_named_shortly(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("data:\n  batch_size: 1" + 5000 * "0")
    with pytest.raises(UserError, match="integer string conversion") as refused:
        check_arguments("fit", ["--config", str(tmp_path / "a.yaml")])
    assert len(str(refused.value)) < 500
    with pytest.raises(UserError, match="takes a whole number") as refused:
        check_arguments("fit", ["--data.batch_size", "1" + 5000 * "0"])
    assert len(str(refused.value)) < 500


def test_classes_in_python_have_the_same_ranges() -> None:
    with pytest.raises(UserError, match=r"model\.warmup is nan"):
        FineTuneModule(warmup=float("nan"))
    with pytest.raises(UserError, match=r"model\.budget_tolerance is 1, but must be at least 0 and below 1"):
        FineTuneModule(budget_tolerance=1)
    with pytest.raises(UserError, match=r"data\.num_workers is 10000, but must be at least 0 and at most 512"):
        TaskDataModule(num_workers=10000)
    with pytest.raises(
        UserError, match=r"data\.pad_multiple is 600, but must be at least 1 and at most data\.max_length"
    ):
        TaskDataModule(pad_multiple=600)


def test_every_range_is_of_a_setting() -> None:
    known = {setting.key for group in groups("fit") for setting in group.settings}
    assert {key for key in RANGES if "init_args" not in key} <= known


def test_the_schema_of_a_range_accepts_its_numbers() -> None:
    import jsonschema

    for valid in (*RANGES.values(), Range(0, 1, without_low=True)):
        for number in (-2, -1, 0, 0.5, 1, 2, 512, 513, 2**31, 2**32):
            accepted = jsonschema.Draft202012Validator(valid.schema()).is_valid(number)
            assert accepted == (number in valid) or (valid.also == -1 and number == 0.5)


@pytest.mark.parametrize(("text", "value"), [("3", 3), ("1", 1), ("1.0", 1.0), ("0.5", 0.5)])
def test_a_number_of_batches_stays_a_whole_number(text: str, value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """``typing`` may return ``float | int`` for ``int | float`` from its cache; 1 batch would become all of them."""
    plain = LightningArgumentParser.parse_args
    seen = []

    def parse(parser: Any, *args: Any, **kwargs: Any) -> Any:
        seen.extend(action._typehint.__args__ for action in parser._actions if action.dest.startswith("trainer.limit_"))
        return plain(parser, *args, **kwargs)

    monkeypatch.setattr(LightningArgumentParser, "parse_args", parse)
    parser = OneSentenceParser()
    parser.add_argument("--trainer.limit_train_batches", type=float | int | None)
    parsed = parser.parse_args([f"--trainer.limit_train_batches={text}"])
    assert seen == [(int, float, type(None))]
    assert (parsed.trainer.limit_train_batches, type(parsed.trainer.limit_train_batches)) == (value, type(value))


@pytest.mark.parametrize("flag", ["--lr", "--model.optimizer.lr"])
def test_a_word_is_no_learning_rate(flag: str) -> None:
    """torch also takes a tensor there, and the parser would look for a file."""
    args = with_full_keys("fit", ["--config", "piqa", flag, "abc"])
    with pytest.raises(UserError, match=r"^model\.optimizer\.init_args\.lr is 'abc', but takes a number \(above 0\)$"):
        check_arguments("fit", args)
