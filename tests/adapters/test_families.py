"""Every family of backbone: which layers are adapted by default, how it is scored, and that it trains."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import peft
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedTokenizerFast

from smoa_lightning.adapters import BottleneckConfig, SMoAConfig, adapted_layers, attach
from smoa_lightning.backbones.backbone import BackboneConfig
from smoa_lightning.data.datamodule import TaskDataModule
from smoa_lightning.data.encoding.encode import IGNORED
from smoa_lightning.evaluation import scoring
from smoa_lightning.training.module import FineTuneModule

from .architectures import ARCHITECTURES, CAUSAL, inputs

QKV = ("q_proj", "k_proj", "v_proj")
LLAMA = {*(f"self_attn.{name}" for name in QKV), "mlp.up_proj", "mlp.down_proj"}
NEOX = {"attention.query_key_value", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h"}
EXPERTS = {f"self_attn.{name}" for name in QKV}
SHARED = {*EXPERTS, "mlp.shared_expert.up_proj", "mlp.shared_expert.down_proj"}
BERT = {*(f"attention.self.{name}" for name in ("query", "key", "value"))}
BERT |= {"attention.output.dense", "intermediate.dense", "output.dense"}

SLOTS_OF_VIT = ("attention.o_proj", "mlp.fc2")

# By family: the list of transformer layers, what is adapted in each of them, and after what the two slots stand.
EXPECTED: dict[str, tuple[str, set[str], tuple[str, str]]] = {
    **dict.fromkeys(
        ("llama", "qwen2", "qwen3", "mistral", "gemma", "gemma2", "gemma3_text"),
        ("model.layers", LLAMA, ("self_attn.o_proj", "mlp.down_proj")),
    ),
    "gpt2": ("transformer.h", {"attn.c_attn", "mlp.c_fc", "mlp.c_proj"}, ("attn.c_proj", "mlp.c_proj")),
    "gpt_neox": ("gpt_neox.layers", NEOX, ("attention.dense", "mlp.dense_4h_to_h")),
    "opt": ("model.decoder.layers", {*EXPERTS, "fc1", "fc2"}, ("self_attn.out_proj", "fc2")),
    "phi": ("model.layers", {*EXPERTS, "mlp.fc1", "mlp.fc2"}, ("self_attn.dense", "mlp.fc2")),
    "phi3": (
        "model.layers",
        {"self_attn.qkv_proj", "mlp.gate_up_proj", "mlp.down_proj"},
        ("self_attn.o_proj", "mlp.down_proj"),
    ),
    **dict.fromkeys(("mixtral", "qwen3_moe", "olmoe"), ("model.layers", EXPERTS, ("self_attn.o_proj", "mlp"))),
    "qwen2_moe": ("model.layers", SHARED, ("self_attn.o_proj", "mlp")),
    "bert": ("bert.encoder.layer", BERT, ("attention.output.dense", "output.dense")),
    "roberta": ("roberta.encoder.layer", BERT, ("attention.output.dense", "output.dense")),
    **{
        family: (f"{family}.{layers}", {*(f"attention.{n}" for n in QKV), "mlp.fc1", "mlp.fc2"}, SLOTS_OF_VIT)
        for family, layers in (
            *((name, "layers") for name in ("vit", "deit", "beit")),
            *(("dinov2", "encoder.layer"), ("swin", "encoder.layers.0.blocks")),
        )
    },
    "clip": (
        "vision_model.encoder.layers",
        {*(f"self_attn.{n}" for n in QKV), "mlp.fc1", "mlp.fc2"},
        ("self_attn.out_proj", "mlp.fc2"),
    ),
}


def names(family: str, config: Any) -> set[str]:
    with torch.device("meta"):
        model = ARCHITECTURES[family]()
    return {layer.name for layer in adapted_layers(attach(model, config, seed=0))}


def everywhere(family: str, inner: Any) -> set[str]:
    return {f"{EXPECTED[family][0]}.{index}.{name}" for index in range(2) for name in inner}


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_default_targets(family: str) -> None:
    """A method of ours and one of peft's adapt the same layers, and the slots stand where bottleneck adapters do."""
    expected = everywhere(family, EXPECTED[family][1])
    assert names(family, SMoAConfig(r=4)) == names(family, peft.LoraConfig(r=4)) == expected
    attention, feedforward = EXPECTED[family][2]
    assert names(family, BottleneckConfig(bottleneck_size=3)) == everywhere(family, (attention, feedforward))
    after_feedforward = BottleneckConfig(bottleneck_size=3, placement="pfeiffer")
    assert names(family, after_feedforward) == everywhere(family, [feedforward])


ROWS = ((9, 4), (17, 1), (5, 5))  # lengths of prompt and response


@pytest.mark.parametrize("family", CAUSAL)
def test_scores_do_not_depend_on_padding_or_batch(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The padded batch gives what every row gives alone, computed here from its logits in float64."""
    model = ARCHITECTURES[family]()
    generator = torch.Generator().manual_seed(3)
    rows = [torch.randint(3, 40, (sum(row),), generator=generator) for row in ROWS]
    expected = []
    for ids, (prompt, _) in zip(rows, ROWS, strict=True):
        with torch.no_grad():
            predicted = model(ids[None]).logits[0, :-1].double().log_softmax(-1)
        expected.append(predicted.gather(1, ids[1:, None])[prompt - 1 :].sum())
    padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    length = torch.tensor([len(ids) for ids in rows])[:, None]
    place = torch.arange(padded.shape[1])
    answer = (place >= torch.tensor([prompt for prompt, _ in ROWS])[:, None]) & (place < length)
    batch = {
        "input_ids": padded,
        "attention_mask": (place < length).long(),
        "labels": padded.where(answer, torch.tensor(IGNORED)),
    }
    head, seen = model.get_output_embeddings(), []
    head.register_forward_hook(lambda module, inputs, output: seen.append(output.shape[1]))
    for without_head in (False, True):
        if without_head:
            monkeypatch.setattr(model, "get_output_embeddings", lambda: None)
        with torch.no_grad():
            found, tokens = scoring.row_log_likelihoods(*scoring.target_logits(model, batch))
        assert seen.pop() == (padded.shape[1] if without_head else sum(response for _, response in ROWS))
        torch.testing.assert_close(found.double(), torch.stack(expected), rtol=1e-5, atol=1e-5)
        assert tokens.tolist() == [response for _, response in ROWS]


STRATEGIES: dict[str, Callable[[], Any]] = {
    "smoa": lambda: SMoAConfig(r=4),
    "lora": lambda: peft.LoraConfig(r=4),
    "bottleneck": lambda: BottleneckConfig(bottleneck_size=4),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, byte_tokenizer: PreTrainedTokenizerFast) -> Callable[[str], Path]:
    """A folder with the family's tiny model and the tokenizer of bytes."""
    known: dict[str, Path] = {}

    def make(family: str) -> Path:
        if family not in known:
            folder = tmp_path_factory.mktemp(family)
            ARCHITECTURES[family](  # type: ignore[call-arg]
                vocab_size=len(byte_tokenizer), **dict.fromkeys(("max_position_embeddings", "n_positions"), 512)
            ).save_pretrained(folder)
            byte_tokenizer.save_pretrained(folder)
            known[family] = folder
        return known[family]

    return make


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("family", CAUSAL)
def test_a_training_step_from_a_folder(
    family: str, strategy: str, folders: Callable[[str], Path], piqa_folder: Path
) -> None:
    module = FineTuneModule(BackboneConfig("local", path=str(folders(family))), STRATEGIES[strategy]())
    data = TaskDataModule("piqa", "local", path=str(piqa_folder), batch_size=2, selection_rows=0)
    data.tokenizer = module.tokenizer
    module.configure_model()
    before = {name: parameter.detach().clone() for name, parameter in module.network.named_parameters()}
    trainer = L.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        max_steps=2,  # factors that start at zero keep the others still in the first one
    )
    trainer.fit(module, datamodule=data)
    moved = {name for name, p in module.network.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {name for name, p in module.network.named_parameters() if p.requires_grad}
    assert len(moved) >= 2 * len(adapted_layers(module.network))  # type: ignore[arg-type]


def test_cross_entropy_is_that_of_the_model(folders: Callable[[str], Path]) -> None:
    """The loss that we sum is the one that transformers computes for itself."""
    model = ARCHITECTURES["mixtral"]()
    ids: Tensor = inputs(model)["input_ids"]
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}
    loss, count = scoring.summed_cross_entropy(*scoring.target_logits(model, batch))
    reference = F.cross_entropy(model(ids).logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    torch.testing.assert_close(loss / count, reference)
