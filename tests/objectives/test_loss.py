"""The loss of a new head against transformers and peft, and the head beside every strategy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import peft
import pytest
import torch
from transformers import AutoModelForSequenceClassification, BertForSequenceClassification

from smoa_lightning.adapters import SMoAConfig, SurmConfig
from smoa_lightning.adapters.budget import trainable_parameters
from smoa_lightning.adapters.inspect import adapted_layers, sizes
from smoa_lightning.adapters.parameters import head_parameters
from smoa_lightning.backbones.backbone import BackboneConfig, load_skeleton
from smoa_lightning.common.errors import UserError
from smoa_lightning.data.datamodule import TaskDataModule
from smoa_lightning.objectives import LANGUAGE_MODELING, objective_of
from smoa_lightning.training.adapter_folder import load_adapter, save_adapter
from smoa_lightning.training.module import FineTuneModule

from .conftest import FAMILIES

Build = tuple[FineTuneModule, TaskDataModule]
FACTS = {"which": "best", "task": "rte", "step": 1, "data_source": "local", "selection": {"metric": "acc", "score": 1}}


def build(folder: Path, rows: Path, adapter: Any = None, **settings: Any) -> Build:
    data = TaskDataModule(rows.name, "local", path=str(rows), batch_size=8, selection_rows=8, max_length=24)
    module = FineTuneModule(BackboneConfig("local", path=str(folder)), adapter, **settings)
    module.objective = objective_of(data.sets)
    data.tokenizer = module.tokenizer
    data.sets.fit_context(module.limits)
    return module, data


def first_batch(data: TaskDataModule) -> dict[str, Any]:
    data.setup("fit")
    data.trainer = None
    return next(iter(data.train_dataloader()))


def inputs_of(batch: dict[str, Any]) -> dict[str, Any]:
    return {name: batch[name] for name in batch if name in ("input_ids", "attention_mask", "token_type_ids")}


def trainer(**settings: Any) -> L.Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return L.Trainer(accelerator="cpu", enable_model_summary=False, limit_val_batches=0, **quiet, **settings)


@pytest.mark.parametrize("lora", [False, True], ids=["alone", "lora"])
@pytest.mark.parametrize("task", ["rte", "stsb", "mnli"])
def test_loss_is_that_of_transformers(
    task: str, lora: bool, encoder: Callable[[str], Path], glue_folder: Path, tmp_path: Path
) -> None:
    module, data = build(encoder("bert"), glue_folder / task, peft.LoraConfig(r=2, init_lora_weights=False))
    module.adapter_config = module.adapter_config if lora else None
    module.configure_model()
    batch = first_batch(data)
    network: Any = module.network
    assert "token_type_ids" in batch
    assert batch["token_type_ids"].max() == 1
    loss, targets = module.objective.loss(network.eval(), batch)

    base = network.get_base_model() if lora else network
    assert isinstance(base, BertForSequenceClassification)
    network.save_pretrained(tmp_path)
    settings = dict(base.config.to_dict(), num_labels=base.config.num_labels)
    names = {key: settings[key] for key in ("id2label", "label2id", "problem_type")}
    reference: Any = BertForSequenceClassification.from_pretrained(tmp_path if not lora else encoder("bert"), **names)
    if lora:
        reference = peft.PeftModel.from_pretrained(reference, str(tmp_path))
    labels = batch["labels"].float() if task == "stsb" else batch["labels"].long()
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
    expected = reference.eval()(**inputs, labels=labels).loss
    assert (loss / targets).item() == pytest.approx(expected.item(), abs=1e-6)
    assert int(targets) == len(labels) == 8


def test_ignored_labels_do_not_count(encoder: Callable[[str], Path], glue_folder: Path) -> None:
    """A process without rows of its own in a shared batch has the longest row, with the label -100."""
    for task in ("rte", "stsb"):
        module, data = build(encoder("bert"), glue_folder / task)
        module.configure_model()
        module.network.eval()
        batch = first_batch(data)
        half = {name: value[:4] for name, value in batch.items()}
        batch["labels"][4:] = -100
        loss, targets = module.objective.loss(module.network, batch)
        expected, count = module.objective.loss(module.network, half)
        assert int(targets) == int(count) == 4
        assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


_DENSE = ("intermediate.dense", "output.dense")
_BERT = tuple(f"attention.self.{name}" for name in ("query", "key", "value")) + _DENSE
TARGETS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("bert", "roberta", "electra"), _BERT),
    "deberta": ("attention.self.in_proj", *_DENSE),
    "deberta-v2": (*(f"attention.self.{name}_proj" for name in ("query", "key", "value")), *_DENSE),
    "modernbert": ("attn.Wqkv", "mlp.Wi", "mlp.Wo"),
    "llama": ("q_proj", "k_proj", "v_proj", "up_proj", "down_proj"),
}


def before_names(state: Any) -> set[str]:
    """Return the names of the layers of the backbone, without those of the head."""
    return {name.rpartition(".")[0] for name in state if name.count(".") > 2}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_trains_its_head_and_loads_again(
    family: str, encoder: Callable[[str], Path], glue_folder: Path, tmp_path: Path
) -> None:
    """One step moves adapter and head only; the saved adapter gives the same outputs."""
    module, data = build(encoder(family), glue_folder / "rte", SMoAConfig(r=2, num_subspaces=2))
    trainer(max_steps=1).fit(module, datamodule=data)
    network: Any = module.network
    untouched, _ = build(encoder(family), glue_folder / "rte")
    untouched.configure_model()
    before = untouched.network.state_dict()
    frozen = {n: p for n, p in network.get_base_model().named_parameters() if not p.requires_grad}
    frozen = {n.replace("base_layer.", "").replace("original_module.", ""): p for n, p in frozen.items()}
    assert frozen.keys() == before.keys()
    assert all(torch.equal(parameter, before[name]) for name, parameter in frozen.items())
    head = head_parameters(network)
    assert head
    assert all(parameter.grad is not None for parameter in head)
    adapted = {layer.name for layer in adapted_layers(network)}
    assert adapted == {name for name in before_names(before) if name.endswith(TARGETS[family])}

    save_adapter(module, tmp_path / "adapter", FACTS)
    loaded, tokenizer = load_adapter(tmp_path / "adapter")
    assert tokenizer.pad_token_id == loaded.config.pad_token_id == 0
    batch = first_batch(data)
    inputs = inputs_of(batch)
    with torch.no_grad():
        assert torch.allclose(loaded(**inputs).logits, network.eval()(**inputs).logits, atol=1e-6)


def own_parameters(network: Any) -> dict[str, torch.Tensor]:
    """Return copies of the adapter's parameters, without those of the head."""
    head = {id(parameter) for parameter in head_parameters(network)}
    return {n: p.detach().clone() for n, p in network.named_parameters() if p.requires_grad and id(p) not in head}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ["smoa", "lora"])
def test_every_family_trains_the_parameters_of_its_adapter(
    method: str, family: str, encoder: Callable[[str], Path], glue_folder: Path
) -> None:
    """A has no gradient in the first step, since B is zero. After three, both have moved and change the outputs."""
    adapter = SMoAConfig(r=2, num_subspaces=2) if method == "smoa" else peft.LoraConfig(r=2)
    module, data = build(encoder(family), glue_folder / "rte", adapter, warmup=0)
    module.configure_model()
    network: Any = module.network
    before = own_parameters(network)
    assert {part for name in before for part in name.split(".") if part.startswith(method)} == {
        f"{method}_A",
        f"{method}_B",
    }
    trainer(max_steps=3).fit(module, datamodule=data)
    after = own_parameters(network)
    assert after.keys() == before.keys()
    assert not [name for name in before if torch.equal(before[name], after[name])]
    inputs = inputs_of(first_batch(data))
    with torch.no_grad():
        trained = network.eval()(**inputs).logits
        for name, values in before.items():
            network.get_parameter(name).copy_(values)
        assert (network(**inputs).logits - trained).abs().max() > 1e-5  # with the same head


STRATEGIES: dict[str, Callable[[], Any]] = {
    "lora_all_linear": lambda: peft.LoraConfig(r=2, target_modules="all-linear"),
    "ia3": peft.IA3Config,
    "surm": lambda: SurmConfig(structure="circulant"),
    "prompt": lambda: peft.PromptTuningConfig(num_virtual_tokens=3),
    "full": lambda: None,
}


@pytest.mark.parametrize("name", [*STRATEGIES, "head"])
def test_head_is_trained_beside_every_strategy_and_counted_apart(
    name: str, encoder: Callable[[str], Path], glue_folder: Path
) -> None:
    adapter = STRATEGIES[name]() if name in STRATEGIES else None
    module, data = build(encoder("bert"), glue_folder / "mnli", adapter, frozen=name == "head", head_lr=0.5)
    trainer(max_steps=1).fit(module, datamodule=data)
    counts = sizes(module.network)
    assert counts["head"] == 3 * 24 + 3
    skeleton = load_skeleton(module.backbone_config, module.location)
    expected = 0 if name == "head" else trainable_parameters(skeleton, module.adapter_config)
    assert counts["trainable"] == expected
    groups = module.trainer.optimizers[0].param_groups
    assert [group["initial_lr"] for group in groups] == ([0.5] if name == "head" else [1e-3, 0.5])
    assert {id(p) for p in groups[-1]["params"]} == {id(p) for p in head_parameters(module.network)}


def test_step_of_several_batches_is_the_mean_over_all_rows(encoder: Callable[[str], Path], glue_folder: Path) -> None:
    module, data = build(encoder("bert"), glue_folder / "rte", frozen=True)
    seen: list[Any] = []
    gradients: list[torch.Tensor] = []

    class Keep(L.Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            seen.append(batch)

        def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
            grads = [p.grad.clone() for p in head_parameters(pl_module.network) if p.grad is not None]
            gradients[:] = grads or gradients

    trainer(max_steps=1, accumulate_grad_batches=3, callbacks=[Keep()]).fit(module, datamodule=data)
    reference, _ = build(encoder("bert"), glue_folder / "rte", frozen=True)
    reference.configure_model()
    pairs = [reference.objective.loss(reference.network.eval(), batch) for batch in seen]
    (sum(loss for loss, _ in pairs) / sum(int(count) for _, count in pairs)).backward()
    for found, parameter in zip(gradients, head_parameters(reference.network), strict=True):
        assert torch.allclose(found, parameter.grad, rtol=1e-4, atol=1e-6)  # type: ignore[arg-type]


def test_values_of_the_head_follow_the_seed(encoder: Callable[[str], Path], glue_folder: Path) -> None:
    values = []
    for seed in (0, 0, 1):
        module, _ = build(encoder("deberta-v2"), glue_folder / "rte", adapter_seed=seed)
        module.configure_model()
        values.append(torch.cat([p.flatten() for p in head_parameters(module.network)]))
    assert torch.equal(values[0], values[1])
    assert not torch.equal(values[0], values[2])


def test_a_head_in_the_files_is_loaded(encoder: Callable[[str], Path], glue_folder: Path, tmp_path: Path) -> None:
    module, data = build(encoder("bert"), glue_folder / "rte")
    model = AutoModelForSequenceClassification.from_pretrained(encoder("bert"), num_labels=2)
    model.save_pretrained(tmp_path)
    data.tokenizer.save_pretrained(tmp_path)  # type: ignore[union-attr]
    module, _ = build(tmp_path, glue_folder / "rte")
    module.configure_model()
    assert torch.equal(module.network.classifier.weight, model.classifier.weight)  # type: ignore[union-attr,arg-type]
    other, _ = build(tmp_path, glue_folder / "mnli")  # three classes: the head of two is replaced
    other.configure_model()
    assert other.network.classifier.weight.shape == (3, 24)  # type: ignore[union-attr]


# ------------------------------------------------------------------------------------------------------- refusals


def test_data_of_another_objective_are_refused(encoder: Callable[[str], Path], glue_folder: Path) -> None:
    module, data = build(encoder("llama"), glue_folder / "rte")
    module.objective = LANGUAGE_MODELING
    with pytest.raises(UserError, match="is for language_modeling, but the data are for sequence_classification"):
        trainer(max_steps=1).fit(module, datamodule=data)


def test_models_without_such_a_head_are_refused(tiny_backbone: Path, glue_folder: Path, tmp_path: Path) -> None:
    for kind, message in (("vit", "has no head for sequence classification"), ("t5", "is an encoder-decoder")):
        (tmp_path / "config.json").write_text(f'{{"model_type": "{kind}"}}')
        with pytest.raises(UserError, match=message):
            build(tmp_path, glue_folder / "rte")


def test_quantised_weights_and_a_useless_rate_are_refused(
    encoder: Callable[[str], Path], tiny_backbone: Path, glue_folder: Path, piqa_folder: Path
) -> None:
    module = FineTuneModule(BackboneConfig("local", path=str(encoder("bert")), quantization="nf4"))
    module.objective = objective_of(TaskDataModule("rte", "local", path=str(glue_folder / "rte")).sets)
    with pytest.raises(UserError, match="quantization is 'nf4', but a new head"):
        module.location  # noqa: B018
    plain = FineTuneModule(BackboneConfig("local", path=str(tiny_backbone)), head_lr=0.1)
    data = TaskDataModule("piqa", "local", path=str(piqa_folder), selection_rows=8)
    data.tokenizer = plain.tokenizer
    with pytest.raises(UserError, match=r"head_lr is 0\.1, but the task has no new head"):
        trainer(max_steps=1).fit(plain, datamodule=data)
