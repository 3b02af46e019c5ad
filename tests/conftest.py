"""A tiny random backbone with a byte-level tokenizer, and PIQA rows in a folder: all that a test run needs, offline."""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # before huggingface_hub is imported: no test may reach for the network
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
if "PYTEST_XDIST_WORKER" in os.environ:  # one test process for each core
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from huggingface_hub import ModelCard, ModelCardData, RepoCard
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from smoa_lightning.common.console import console
from smoa_lightning.embedded import rows

collect_ignore = ["peft_suite"]  # run by its own script, with a checkout of peft (tests/peft_suite/run.py)
EXPERIMENTS = Path(__file__).parents[1] / "experiments"
for name, logger in logging.root.manager.loggerDict.items():  # pytest visits all that do not propagate, in each phase
    if name.startswith("torch.") and isinstance(logger, logging.Logger):
        logger.propagate = True
CACHE = tempfile.TemporaryDirectory()  # encoded rows: not in the user's own cache, and anew in each test session
os.environ["SMOA_LIGHTNING_CACHE"] = CACHE.name


@pytest.fixture(autouse=True)
def _restore_global_state() -> Iterator[None]:
    """Begin with one random state, whatever ran before; leave state, default dtype and thread count as they were."""
    rng, dtype, threads = torch.get_rng_state(), torch.get_default_dtype(), torch.get_num_threads()
    torch.default_generator.manual_seed(0)  # `torch.manual_seed` also records a traceback for each kind of device
    yield
    torch.set_rng_state(rng)
    torch.set_default_dtype(dtype)
    torch.set_num_threads(threads)


@pytest.fixture
def shown_notes() -> Iterator[None]:
    """Show the notes of the package as a command does."""
    with console():
        yield


@pytest.fixture(scope="session", autouse=True)
def _empty_card_is_rendered_once() -> Iterator[None]:
    """peft renders the same empty card at every save, a third of its time; here each save gets a copy of the first."""
    empty = str(ModelCard.from_template(ModelCardData()))
    original = RepoCard.from_template.__func__  # type: ignore[attr-defined]

    def from_template(cls: type[RepoCard], card_data: ModelCardData, *args: Any, **kwargs: Any) -> RepoCard:
        if cls is ModelCard and not card_data.to_dict() and not args and not kwargs:
            return ModelCard(empty)
        return original(cls, card_data, *args, **kwargs)  # type: ignore[no-any-return]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ModelCard, "from_template", classmethod(from_template))
        yield


@pytest.fixture(scope="session", autouse=True)
def _parsers_are_built_once() -> Iterator[None]:
    """A third of the time before a run goes into building its parser, which depends on the subcommand alone.

    ``test_arguments.py`` builds parsers of its own, and every test that starts a process a new one.
    """
    built: dict[Hashable, Any] = {}

    def cached(kind: str, key: Hashable, make: Callable[[], Any]) -> Any:
        if key not in built:
            built[key] = make()
        return built[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("smoa_lightning.training.cli.cached", cached)
        yield


@pytest.fixture(scope="session")
def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte, and three special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate(["<pad>", "<s>", "</s>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", model_max_length=512
    )


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory: pytest.TempPathFactory, byte_tokenizer: PreTrainedTokenizerFast) -> Path:
    """A folder with a random Llama of two layers."""
    folder = tmp_path_factory.mktemp("backbone")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(byte_tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    byte_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def piqa_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of splits with a few of the generated rows."""
    folder = tmp_path_factory.mktemp("piqa")
    for split, count in (("train", 160), ("validation", 24)):
        lines = [json.dumps(row) for row in rows("piqa", split)[:count]]
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def tiny_arguments(tiny_backbone: Path, piqa_folder: Path, tmp_path: Path) -> list[str]:
    """Flags that turn experiments/piqa.yaml into a run of seconds."""
    return [
        "--config",
        str(EXPERIMENTS / "piqa.yaml"),
        *("--model.backbone.source", "local", "--model.backbone.path", str(tiny_backbone)),
        *("--data.source", "local", "--data.path", str(piqa_folder)),
        *("--model.adapter.r", "4", "--data.batch_size", "8", "--data.selection_rows", "16"),
        *("--trainer.max_epochs", "1", "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"),
        *("--forgetting.max_documents", "5"),  # of 200, which take a third of such a run
        *("--run.root", str(tmp_path / "runs")),
    ]
