"""SMoA together with other things that are trained, and several adapters one after the other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import peft
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor, nn

from smoa_lightning.adapters import SMoAConfig, adapter_bytes, attach
from smoa_lightning.adapters.combine import CombinedModel, attach_both, load_both
from smoa_lightning.adapters.parameters import adapter_parameter_names
from smoa_lightning.backbones.backbone import BackboneConfig, load_model
from smoa_lightning.common.errors import UserError
from smoa_lightning.data.datamodule import TaskDataModule
from smoa_lightning.evaluation.scoring import row_log_likelihoods, target_logits
from smoa_lightning.training.module import FineTuneModule

from .architectures import ARCHITECTURES

NORMS = ["input_layernorm", "post_attention_layernorm", "norm"]
# generate() passes positions, which a prompt method moves by its virtual tokens
pytestmark = pytest.mark.filterwarnings("ignore:Position ids are not supported for parameter efficient:UserWarning")

PROMPTS: dict[str, Callable[[], Any]] = {
    "prompt": lambda: peft.PromptTuningConfig(num_virtual_tokens=5),
    "ptuning": lambda: peft.PromptEncoderConfig(num_virtual_tokens=5, encoder_hidden_size=16),
    "prefix": lambda: peft.PrefixTuningConfig(num_virtual_tokens=5),
}


def train(model: nn.Module, ids: Tensor, steps: int = 3) -> set[str]:
    """Train what requires gradients; return the names of what moved."""
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.05)
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        model(ids, labels=ids).loss.backward()
        optimizer.step()
    model.eval()
    return {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}


def fit(model: nn.Module | None, folder: Path, rows: Path, config: Any) -> FineTuneModule:
    """Two steps of FineTuneModule, which checks that exactly the adapter's parameters are trained."""
    module = FineTuneModule(BackboneConfig("local", path=str(folder)), config)
    module.model = model  # type: ignore[assignment]
    data = TaskDataModule("piqa", "local", path=str(rows), batch_size=4, selection_rows=8)
    data.tokenizer = module.tokenizer
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = L.Trainer(accelerator="cpu", max_steps=2, limit_val_batches=1, enable_checkpointing=False, **quiet)
    trainer.fit(module, datamodule=data)
    return module


# ------------------------------------------------------------------------------------- layer norms and the output layer


@pytest.mark.parametrize("saved", [NORMS, ["lm_head"], [*NORMS, "lm_head"]], ids=["norms", "lm_head", "both"])
def test_modules_to_save_are_trained_counted_saved_and_loaded(
    saved: list[str], token_ids: Tensor, tmp_path: Path
) -> None:
    backbone = ARCHITECTURES["llama"]()
    plain = backbone(token_ids).logits
    alone = attach(ARCHITECTURES["llama"](), SMoAConfig(r=4), seed=0).get_nb_trainable_parameters()[0]
    model = attach(backbone, SMoAConfig(r=4, modules_to_save=saved), seed=0)
    torch.testing.assert_close(model(token_ids).logits, plain, rtol=1e-5, atol=1e-5)
    count = sum(5 * 20 if name == "norm" else 0 for name in saved) + (40 * 20 if "lm_head" in saved else 0)
    assert model.get_nb_trainable_parameters()[0] == alone + count

    moved = train(model, token_ids)
    assert moved == {name for name, p in model.named_parameters() if p.requires_grad} == adapter_parameter_names(model)
    with model.disable_adapter():
        assert torch.equal(model(token_ids).logits, plain)

    trained = model(token_ids).logits
    model.save_pretrained(tmp_path)
    kept = [key for key in load_file(tmp_path / "adapter_model.safetensors") if "smoa_" not in key]
    assert len(kept) == ("norm" in saved) * 5 + ("lm_head" in saved)
    assert (tmp_path / "adapter_model.safetensors").stat().st_size == adapter_bytes(model)
    again = PeftModel.from_pretrained(ARCHITECTURES["llama"](), str(tmp_path)).eval()
    assert torch.equal(again(token_ids).logits, trained)
    torch.testing.assert_close(again.merge_and_unload()(token_ids).logits, trained, rtol=1e-4, atol=1e-4)


def test_modules_to_save_through_the_module(tiny_backbone: Path, piqa_folder: Path) -> None:
    module = fit(None, tiny_backbone, piqa_folder, SMoAConfig(r=4, modules_to_save=[*NORMS, "lm_head"]))
    state = module.state_dict()
    assert sum("modules_to_save" in name for name in state) == 6
    assert all("original_module" not in name for name in state)


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning")
def test_a_tied_output_layer_is_untied(token_ids: Tensor) -> None:
    """The copy that is trained is one of the output layer alone; the embedding stays that of the backbone."""
    model = attach(
        ARCHITECTURES["llama"](tie_word_embeddings=True),  # type: ignore[call-arg]
        SMoAConfig(r=4, modules_to_save=["lm_head"]),
        seed=0,
    )
    moved = train(model, token_ids)
    assert "base_model.model.lm_head.modules_to_save.default.weight" in moved
    assert not any("embed_tokens" in name for name in moved)


# ----------------------------------------------------------------------------------------------------- virtual tokens


@pytest.mark.parametrize("kind", PROMPTS)
@pytest.mark.parametrize("family", ["llama", "gpt2", "mixtral"])
def test_smoa_and_a_prompt_method(family: str, kind: str, tmp_path: Path) -> None:
    """Both train, score, generate, are saved, loaded and switched off together."""
    backbone = ARCHITECTURES[family]()
    ids = torch.arange(24).view(2, 12) % 37 + 3
    plain = backbone(ids).logits
    config = PROMPTS[kind]()
    model = attach_both(backbone, SMoAConfig(r=4), config, seed=0)
    assert config.token_dim is None  # the caller's own is not changed
    moved = train(model, ids)
    assert moved == adapter_parameter_names(model)
    assert {"smoa_A" in name for name in moved} == {True, False}

    logits = model(ids).logits
    with model.disable_adapter():
        assert torch.equal(model(ids).logits, plain)
    with model.weights.disable_adapter():  # the prompt alone
        assert not torch.allclose(model(ids).logits, logits)
    written = model.generate(input_ids=ids, max_new_tokens=5, do_sample=False)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}
    scores, _ = row_log_likelihoods(*target_logits(model, batch))

    model.save_pretrained(tmp_path)
    again = load_both(ARCHITECTURES[family](), tmp_path).eval()
    assert torch.equal(again(ids).logits, logits)
    assert torch.equal(again.generate(input_ids=ids, max_new_tokens=5, do_sample=False), written)
    torch.testing.assert_close(row_log_likelihoods(*target_logits(again, batch))[0], scores)
    assert not any(p.requires_grad for p in again.parameters())

    own = logits[:, -12:]  # merged weights under the same prompt, by peft's own classes alone
    merged = PeftModel.from_pretrained(ARCHITECTURES[family](), str(tmp_path / "weights")).merge_and_unload()
    reference = PeftModel.from_pretrained(merged, str(tmp_path)).eval()
    torch.testing.assert_close(reference(ids).logits[:, -12:], own, rtol=1e-4, atol=1e-4)


def test_a_pair_that_is_loaded_to_be_trained(tmp_path: Path, token_ids: Tensor) -> None:
    model = attach_both(ARCHITECTURES["llama"](), peft.LoraConfig(r=4), PROMPTS["prompt"](), seed=0)
    model.save_pretrained(tmp_path)
    again = load_both(ARCHITECTURES["llama"](), tmp_path, is_trainable=True)
    names = {name for name, p in again.named_parameters() if p.requires_grad}
    assert names == adapter_parameter_names(model)
    assert train(again, token_ids) == names


def test_a_pair_trains_through_the_module(tiny_backbone: Path, piqa_folder: Path) -> None:
    config = SMoAConfig(r=4)
    module = FineTuneModule(BackboneConfig("local", path=str(tiny_backbone)), config)
    network = attach_both(load_model(module.backbone_config, module.location), config, PROMPTS["prompt"](), seed=0)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    module = fit(network, tiny_backbone, piqa_folder, config)
    assert isinstance(module.network, CombinedModel)
    moved = {name for name, p in module.network.named_parameters() if not torch.equal(p, before[name])}
    assert moved == adapter_parameter_names(network)
    assert {f"model.{name}" for name in moved} <= module.state_dict().keys()


def test_initial_values_depend_on_the_seed_alone() -> None:
    states = []
    for seed, noise in ((0, 1), (0, 2), (3, 1)):
        torch.manual_seed(noise)
        model = attach_both(ARCHITECTURES["llama"](), SMoAConfig(r=4), PROMPTS["prompt"](), seed)
        states.append(model.get_parameter("prompt_encoder.default.embedding.weight").detach().clone())
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_what_is_no_pair_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="PromptTuningConfig cannot be used as the weights"):
        attach_both(ARCHITECTURES["llama"](), PROMPTS["prompt"](), PROMPTS["prompt"](), seed=0)
    with pytest.raises(UserError, match="SMoAConfig cannot be used as the prompt"):
        attach_both(ARCHITECTURES["llama"](), SMoAConfig(r=4), SMoAConfig(r=4), seed=0)
    with pytest.raises(UserError, match="holds no pair of adapters"):
        load_both(ARCHITECTURES["llama"](), tmp_path)


# ----------------------------------------------------------------------------------------------------- several adapters


@pytest.mark.parametrize("more", [{}, {"modules_to_save": ["norm"]}], ids=["plain", "norms"])
def test_adapters_trained_one_after_the_other_and_switched(
    more: dict[str, Any], token_ids: Tensor, tmp_path: Path
) -> None:
    backbone = ARCHITECTURES["llama"]()
    plain = backbone(token_ids).logits
    model = attach(backbone, SMoAConfig(r=4, **more), seed=0)
    moved_first = train(model, token_ids)
    first = model(token_ids).logits

    model.add_adapter("second", SMoAConfig(r=6, num_subspaces=3, partition="contiguous_blocks", **more))
    model.set_adapter("second")
    torch.testing.assert_close(model(token_ids).logits, plain, rtol=1e-5, atol=1e-5)
    moved_second = train(model, token_ids.flip(1))
    assert all(".default" in name for name in moved_first)
    assert all(".second" in name for name in moved_second)
    second = model(token_ids).logits

    model.set_adapter("default")
    assert torch.equal(model(token_ids).logits, first)
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(ARCHITECTURES["llama"](), str(tmp_path)).eval()
    again.load_adapter(str(tmp_path / "second"), "second")
    assert torch.equal(again(token_ids).logits, first)
    again.set_adapter("second")
    assert torch.equal(again(token_ids).logits, second)


def test_limits_of_peft() -> None:
    """What the documentation says cannot be combined; a version of peft that can is worth to hear of."""
    model = attach(ARCHITECTURES["qwen2"](), SMoAConfig(r=4, bias="all"), seed=0)
    with pytest.raises(ValueError, match="supports only 1 adapter with bias"):
        model.add_adapter("second", SMoAConfig(r=4, bias="all"))

    model = attach(ARCHITECTURES["llama"](), SMoAConfig(r=4, modules_to_save=["norm"]), seed=0)
    model.add_adapter("second", SMoAConfig(r=4, modules_to_save=["norm"]))
    with pytest.raises(ValueError, match="Only one adapter can be set at a time"):
        model.base_model.set_adapter(["default", "second"])

    for other in (peft.LoraConfig(r=4, target_modules=["q_proj"]), PROMPTS["prompt"]()):
        model = attach(ARCHITECTURES["llama"](), SMoAConfig(r=4), seed=0)
        with pytest.raises(ValueError, match="Cannot combine adapters with different peft types"):
            model.add_adapter("other", other)
    with pytest.raises(ValueError, match="not compatible with the `PeftMixedModel`"):
        peft.PeftMixedModel(ARCHITECTURES["llama"](), SMoAConfig(r=4))
