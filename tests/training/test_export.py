"""Exports against their definition: the same logits as the run, loaded by other programs, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from smoa_lightning import FineTuneModule
from smoa_lightning.adapters import SMoAConfig
from smoa_lightning.adapters.abba import AbbaConfig
from smoa_lightning.adapters.bottleneck import BottleneckConfig
from smoa_lightning.adapters.hyperadapt import HyperAdaptConfig
from smoa_lightning.adapters.kradapter import KRAdapterConfig
from smoa_lightning.adapters.mora import MoraConfig
from smoa_lightning.backbones.backbone import BackboneConfig
from smoa_lightning.common.errors import UserError
from smoa_lightning.training.adapter_folder import load_adapter, save_adapter
from smoa_lightning.training.export import merge
from smoa_lightning.training.export.card import table
from smoa_lightning.training.export.export import Options, export

FACTS = {
    "task": "piqa",
    "which": "best",
    "step": 1,
    "data_source": "local",
    "selection": {"metric": "acc", "score": None},
}
IDS = torch.arange(3, 63).reshape(3, 20)
TARGETS = ["q_proj", "down_proj"]
METHODS: dict[str, Any] = {
    "lora": lambda: peft.LoraConfig(r=3, target_modules=TARGETS),
    "dora": lambda: peft.LoraConfig(r=3, target_modules=TARGETS, use_dora=True),
    "pissa": lambda: peft.LoraConfig(r=3, target_modules=TARGETS, init_lora_weights="pissa"),
    "smoa": lambda: SMoAConfig(r=4, target_modules=TARGETS),
    "hyperadapt": lambda: HyperAdaptConfig(target_modules=TARGETS),
    "mora": lambda: MoraConfig(r=3, target_modules=TARGETS),
    "abba": lambda: AbbaConfig(r=2, target_modules=TARGETS),
    "kradapter": lambda: KRAdapterConfig(target_modules=TARGETS),
    "ia3": lambda: peft.IA3Config(target_modules=TARGETS, feedforward_modules=["down_proj"]),
    "full": lambda: None,
}
# Their weights take the way of those of "smoa" or "lora".
ALIKE = ("pissa", "mora", "abba", "kradapter")
METHOD = [pytest.param(name, marks=[pytest.mark.slow] if name in ALIKE else []) for name in METHODS]
Made = Callable[..., Path]


@pytest.fixture
def adapter(tmp_path: Path) -> Made:
    """Make an adapter folder whose parameters have moved away from their start."""

    def make(backbone: Path, config: Any, **settings: Any) -> Path:
        module = FineTuneModule(BackboneConfig(source="local", path=str(backbone), **settings), config)
        module.configure_model()
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for parameter in module.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn(parameter.shape, generator=generator).to(parameter), alpha=0.5)
        save_adapter(module, tmp_path / "saved", FACTS)
        return tmp_path / "saved"

    return make


@pytest.fixture(scope="session")
def tied_backbone(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Path) -> Path:
    """The tiny Llama, with its input embedding as output embedding, and with biases."""
    folder = tmp_path_factory.mktemp("tied")
    torch.manual_seed(1)
    config = AutoModelForCausalLM.from_pretrained(tiny_backbone).config
    config.tie_word_embeddings, config.attention_bias = True, True
    model = AutoModelForCausalLM.from_config(config)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_backbone).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def gpt2(tmp_path_factory: pytest.TempPathFactory, byte_tokenizer: PreTrainedTokenizerFast) -> Path:
    """A random GPT-2: its linear layers are Conv1D with biases, and its output embedding is tied."""
    folder = tmp_path_factory.mktemp("gpt2")
    size = len(byte_tokenizer)
    GPT2LMHeadModel(
        GPT2Config(vocab_size=size, n_embd=24, n_layer=2, n_head=3, n_positions=128, bos_token_id=1, eos_token_id=2)
    ).save_pretrained(folder)
    byte_tokenizer.save_pretrained(folder)
    return folder


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits.float()


def exported(run: Path, output: Path, **options: Any) -> dict[str, Any]:
    text = export(run, output, Options(**options))
    assert f"written to {output}" in text
    facts: dict[str, Any] = json.loads((output / "export.json").read_text())
    return facts


@pytest.mark.parametrize("method", METHOD)
def test_merged_has_the_logits_of_the_run(method: str, adapter: Made, tiny_backbone: Path, tmp_path: Path) -> None:
    run = adapter(tiny_backbone, METHODS[method]())
    facts = exported(run, tmp_path / "out", dtype="float32")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    expected = logits(load_adapter(run)[0])
    assert (logits(model) - expected).abs().max() < 1e-4
    assert (expected - logits(AutoModelForCausalLM.from_pretrained(tiny_backbone))).abs().max() > 1e-3
    assert model.config.use_cache is True
    assert facts["fidelity"]["largest_difference"] < 1e-4
    assert facts["fidelity"]["same_token"] == 1.0
    assert "a fixed text" in facts["fidelity"]["place"]


@pytest.mark.parametrize("method", [method for method in METHOD if method.values != ("full",)])
def test_lora_of_full_rank_has_the_logits_of_the_run(
    method: str, adapter: Made, tiny_backbone: Path, tmp_path: Path
) -> None:
    run = adapter(tiny_backbone, METHODS[method]())
    facts = exported(run, tmp_path / "out", format="lora", rank=32)
    assert facts["update_error"] < 1e-5
    assert facts["left_out"] == []
    base = AutoModelForCausalLM.from_pretrained(tiny_backbone)
    model = PeftModel.from_pretrained(base, str(tmp_path / "out"))
    assert (logits(model) - logits(load_adapter(run)[0])).abs().max() < 1e-4
    assert {type(c).__name__ for c in model.peft_config.values()} == {"LoraConfig"}


def test_merged_loads_without_this_package(adapter: Made, tiny_backbone: Path, tmp_path: Path) -> None:
    run = adapter(tiny_backbone, METHODS["smoa"]())
    exported(run, tmp_path / "out", dtype="float32")
    code = f"""
import sys, torch
sys.modules["smoa_lightning"] = sys.modules["peft"] = None  # an import of them raises an error
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained({str(tmp_path / "out")!r})
assert AutoTokenizer.from_pretrained({str(tmp_path / "out")!r})("a")["input_ids"]
ids = torch.arange(3, 63).reshape(3, 20)
torch.save(model(input_ids=ids).logits, {str(tmp_path / "logits.pt")!r})
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
    found = torch.load(tmp_path / "logits.pt")
    assert (found - logits(load_adapter(run)[0])).abs().max() < 1e-4


@pytest.mark.parametrize("format", ["merged", "lora"])
@pytest.mark.parametrize("method", ["lora", "smoa"])
def test_gpt2(method: str, format: str, adapter: Made, gpt2: Path, tmp_path: Path) -> None:
    config = METHODS[method]()
    config.target_modules = ["c_attn", "c_fc", "c_proj"]
    run = adapter(gpt2, config)
    options = {"dtype": "float32"} if format == "merged" else {"rank": 24}
    exported(run, tmp_path / "out", format=format, **options)
    if format == "merged":
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    else:
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(gpt2), str(tmp_path / "out"))
    assert (logits(model) - logits(load_adapter(run)[0])).abs().max() < 1e-4


@pytest.mark.filterwarnings("ignore::UserWarning")  # of peft, at every saving and loading of an output embedding
@pytest.mark.parametrize("format", ["merged", "lora"])
def test_an_adapted_output_embedding_is_separated_from_the_input(
    format: str, adapter: Made, tied_backbone: Path, tmp_path: Path
) -> None:
    run = adapter(tied_backbone, SMoAConfig(r=4, target_modules=["q_proj", "lm_head"]))
    options = {"dtype": "float32"} if format == "merged" else {"rank": 32}
    facts = exported(run, tmp_path / "out", format=format, **options)
    if format == "merged":
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
        assert not torch.equal(model.lm_head.weight, model.model.embed_tokens.weight)
        assert facts["tied_output"] is False
    else:
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tied_backbone), str(tmp_path / "out"))
    assert (logits(model) - logits(load_adapter(run)[0])).abs().max() < 1e-4


TIED: dict[str, Any] = {
    "lora": lambda: peft.LoraConfig(r=3, target_modules=["embed_tokens", "q_proj"]),
    "dora": lambda: peft.LoraConfig(r=3, target_modules=["embed_tokens"], use_dora=True),
    "both": lambda: peft.LoraConfig(r=3, target_modules=["embed_tokens", "lm_head"]),
    "tokens": lambda: peft.TrainableTokensConfig(target_modules=["embed_tokens"], token_indices=[5, 9]),
}


@pytest.mark.filterwarnings("ignore::UserWarning")  # of peft, at every saving and loading of tied embeddings
@pytest.mark.parametrize(
    ("method", "backbone"), [*((method, "tied_backbone") for method in TIED), ("lora", "tiny_backbone")]
)
def test_an_adapted_input_embedding_is_merged_into_itself_only(
    method: str, backbone: str, adapter: Made, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    run = adapter(request.getfixturevalue(backbone), TIED[method]())
    facts = exported(run, tmp_path / "out", dtype="float32")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert (logits(model) - logits(load_adapter(run)[0])).abs().max() < 1e-4
    assert facts["tied_output"] is (backbone == "tied_backbone" and method == "tokens")


@pytest.mark.filterwarnings("ignore::UserWarning")  # as above
def test_an_export_with_other_logits_is_refused(
    adapter: Made, tied_backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the separation of tied embeddings, peft merges a wrong model."""
    monkeypatch.setattr(merge, "_untie_adapted", lambda model: None)
    run = adapter(tied_backbone, TIED["lora"]())
    with pytest.raises(UserError, match=r"not the model of the run: two logits differ by .*, so nothing is written"):
        export(run, tmp_path / "out", Options(dtype="float32"))
    assert not (tmp_path / "out").exists()


def test_trained_biases_are_merged_and_named_in_a_lora(adapter: Made, tied_backbone: Path, tmp_path: Path) -> None:
    run = adapter(tied_backbone, peft.LoraConfig(r=3, target_modules=["q_proj"], bias="lora_only"))
    assert exported(run, tmp_path / "merged", dtype="float32")["tied_output"] is True
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert (logits(model) - logits(load_adapter(run)[0])).abs().max() < 1e-4
    left_out = exported(run, tmp_path / "lora", format="lora")["left_out"]
    assert left_out == [f"model.layers.{number}.self_attn.q_proj.bias" for number in (0, 1)]


def test_full_fine_tuning_as_a_lora_names_what_it_leaves_out(
    adapter: Made, tiny_backbone: Path, tmp_path: Path
) -> None:
    run = adapter(tiny_backbone, None)
    facts = exported(run, tmp_path / "out", format="lora", rank=32)
    assert facts["update_error"] < 1e-5
    assert "model.embed_tokens.weight" in facts["left_out"]
    assert "model.norm.weight" in facts["left_out"]
    with pytest.raises(UserError, match="full fine-tuning has no adapter"):
        export(run, tmp_path / "other", Options(format="adapter"))


def test_the_dtype_is_cast_once(adapter: Made, tiny_backbone: Path, tmp_path: Path) -> None:
    run = adapter(tiny_backbone, METHODS["smoa"](), dtype="bfloat16")
    exported(run, tmp_path / "wide", dtype="float32")
    for dtype in ("bfloat16", "float16"):
        facts = exported(run, tmp_path / dtype, dtype=dtype)
        wide, narrow = (load_file(tmp_path / name / "model.safetensors") for name in ("wide", dtype))
        assert all(torch.equal(wide[name].to(getattr(torch, dtype)), narrow[name]) for name in wide)
        assert json.loads((tmp_path / dtype / "config.json").read_text())["dtype"] == dtype
        assert facts["dtype"] == dtype
    assert exported(run, tmp_path / "own")["dtype"] == "float32"  # that of the backbone's files


def test_a_quantised_backbone_is_dequantised_first(adapter: Made, tiny_backbone: Path, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    run = adapter(tiny_backbone, METHODS["smoa"](), quantization="nf4")
    facts = exported(run, tmp_path / "out", dtype="float32")
    assert (facts["quantized"], facts["dequantized"]) == ("nf4", True)
    assert "it was dequantised first" in (tmp_path / "out" / "README.md").read_text()
    assert "quantization_config" not in json.loads((tmp_path / "out" / "config.json").read_text())
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert (logits(model) - logits(load_adapter(run)[0])).abs().max() < 1e-3
    assert exported(run, tmp_path / "lora", format="lora", rank=32)["fidelity"]["largest_difference"] < 1e-3


def test_the_chosen_rank(adapter: Made, tiny_backbone: Path, tmp_path: Path) -> None:
    run = adapter(tiny_backbone, METHODS["lora"]())
    facts = exported(run, tmp_path / "exact", format="lora")
    assert facts["rank"] == 3
    assert "exact" in facts["rank_reason"]
    assert facts["update_error"] < 1e-5
    run.rename(tmp_path / "first")
    facts = exported(adapter(tiny_backbone, METHODS["dora"]()), tmp_path / "near", format="lora")
    errors = {int(rank): error for rank, error in facts["update_error_by_rank"].items()}
    assert facts["update_error"] <= 0.01
    assert "at most 1%" in facts["rank_reason"]
    assert all(error > 0.01 for rank, error in errors.items() if rank < facts["rank"])
    with pytest.raises(UserError, match="--rank is 33, but no adapted layer has a rank above 32: use at most 32"):
        exported(run.parent / "first", tmp_path / "large", format="lora", rank=33)
    assert not (tmp_path / "large").exists()


@pytest.mark.parametrize(
    "config",
    [
        lambda: peft.PromptTuningConfig(num_virtual_tokens=2),
        lambda: peft.PrefixTuningConfig(num_virtual_tokens=2),
        lambda: BottleneckConfig(bottleneck_size=2),
    ],
)
@pytest.mark.parametrize("format", ["merged", "lora"])
def test_methods_without_an_update_have_only_the_adapter(
    config: Any, format: str, adapter: Made, tiny_backbone: Path, tmp_path: Path
) -> None:
    run = adapter(tiny_backbone, config())
    with pytest.raises(UserError, match=f"no weight, so it has no {format} form: use --format adapter"):
        export(run, tmp_path / "out", Options(format=format))
    assert not (tmp_path / "out").exists()
    facts = exported(run, tmp_path / "out", format="adapter")
    assert facts["fidelity"]["largest_difference"] == 0.0
    assert (logits(load_adapter(tmp_path / "out")[0]) == logits(load_adapter(run)[0])).all()


def test_the_adapter_is_a_verified_copy(adapter: Made, tiny_backbone: Path, tmp_path: Path) -> None:
    run = adapter(tiny_backbone, METHODS["smoa"]())
    exported(run, tmp_path / "out", format="adapter")
    for file in run.iterdir():
        if file.name != "README.md":
            assert file.read_bytes() == (tmp_path / "out" / file.name).read_bytes()
    weights = run / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match="is damaged or was changed"):
        export(run, tmp_path / "other", Options(format="adapter"))


def test_the_report_names_a_large_lora_and_rounded_weights() -> None:
    fidelity = {"before": {}, "after": {}, "primary": None, "rows": 0, "same_token": 1.0, "positions": 4}
    fidelity |= {"largest_difference": 0.0, "largest_logit": 1.0, "place": "a fixed text"}
    facts = {"fidelity": fidelity, "auto_class": "AutoModelForCausalLM", "dequantized": False}
    assert "same next token" in table(facts | {"format": "adapter"})
    number = facts | {"format": "adapter", "auto_class": "AutoModelForSequenceClassification", "head": "regression"}
    assert "same" not in table(number)
    assert "--dtype float32 writes" in table(facts | {"format": "merged", "dtype": "bfloat16"})
    lora = facts | {"format": "lora", "dtype": "float32", "bytes": 9_000_000, "merged_bytes": 4_000_000}
    assert "the LoRA has 9.0 MB, more than the merged model with about 4.0 MB" in table(lora)
    assert "--dtype" not in table(lora)
    assert "merged" not in table(lora | {"bytes": 3_000_000})
