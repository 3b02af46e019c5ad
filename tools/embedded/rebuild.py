"""Rebuild the embedded backbone, tokenizer and weights, from the generated corpus.

``python -m tools.embedded.rebuild [--output FOLDER] [--steps N] [--threads N]``

The same versions of torch and tokenizers, the same thread count and the same kind of CPU give the same bytes.
Everything is seeded, but matrix products in bfloat16 round differently where other kernels run. `provenance.json` in
the folder names all of these.
"""

from __future__ import annotations

import platform
import random
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from tqdm import tqdm
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from smoa_lightning.common.atomic_files import replacing, write_json
from smoa_lightning.embedded import backbone_folder
from tools.embedded import corpus
from tools.embedded.recipe_options import rebuild_as_asked, run

PAD, BOS, EOS = "<pad>", "<s>", "</s>"
# the split of Llama 3, so that words carry their leading space and digits come in threes at most
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class Recipe:
    """Everything that determines the rebuilt files, except the world and the versions of the libraries."""

    vocabulary: int = 2048
    hidden: int = 192
    layers: int = 4
    heads: int = 6
    key_value_heads: int = 3
    intermediate: int = 512
    context: int = 512
    documents: int = corpus.DOCUMENTS
    window: int = 160
    batch: int = 13
    steps: int = 2000
    peak: float = 3e-3
    warmup: float = 0.05
    settling_documents: int = corpus.SETTLING_DOCUMENTS
    settling_steps: int = 400
    settling_peak: float = 1e-3
    weight_decay: float = 0.5
    seed: int = 20_26
    threads: int = 1


def train_tokenizer(texts: list[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE that behaves like Llama 3's: decoding restores any text, and BOS comes first."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    core.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B:1", special_tokens=[(BOS, core.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        padding_side="right",
        clean_up_tokenization_spaces=False,
    )


def pack(encoded: list[list[int]], window: int, pad: int) -> torch.Tensor:
    """Pack whole documents, in their order, into windows of equal length: (windows, window); longer ones are cut."""
    windows: list[list[int]] = [[]]
    for ids in encoded:
        if windows[-1] and len(windows[-1]) + len(ids) > window:
            windows.append([])
        windows[-1].extend(ids[:window])
    return torch.tensor([ids + [pad] * (window - len(ids)) for ids in windows], dtype=torch.long)


def new_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Return the untrained model of the recipe, in fp32."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.key_value_heads,
        intermediate_size=recipe.intermediate,
        max_position_embeddings=recipe.context,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    # the fused attention of torch is several times slower backward on a CPU at this size
    config._attn_implementation = "eager"
    torch.manual_seed(recipe.seed)
    return LlamaForCausalLM(config)


def rate(step: int, steps: int, warmup: float, peak: float) -> float:
    """Return the learning rate of a step (from 0): linear warm-up to the peak, then linear decay to 0."""
    rising = max(1, round(warmup * steps))
    return peak * min((step + 1) / rising, (steps - step) / max(1, steps - rising))


def train_model(model: LlamaForCausalLM, encoded: list[list[int]], recipe: Recipe, pad: int) -> float:
    """Train in place and leave the weights in bf16; return the mean loss over the last 20 steps.

    The matrix products run in bf16, the optimizer works on fp32 masters, and weight decay spares the norms.
    """
    masters = [parameter.detach().float().clone().requires_grad_() for parameter in model.parameters()]
    model.bfloat16()
    groups = [
        {"params": [p for p in masters if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in masters if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=recipe.peak, betas=(0.9, 0.95))
    losses: list[float] = []
    batches = _batches(encoded, recipe, pad)
    for step in (bar := tqdm(range(recipe.steps), desc="training", unit="step")):
        ids = next(batches)
        labels = ids.masked_fill(ids == pad, -100)
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        for master, parameter in zip(masters, model.parameters(), strict=True):
            assert parameter.grad is not None  # every weight takes part in every step
            master.grad, parameter.grad = parameter.grad.float(), None
        torch.nn.utils.clip_grad_norm_(masters, 1.0)
        for group in optimizer.param_groups:
            group["lr"] = rate(step, recipe.steps, recipe.warmup, recipe.peak)
        optimizer.step()
        with torch.no_grad():
            for master, parameter in zip(masters, model.parameters(), strict=True):
                parameter.copy_(master)
        losses.append(loss.item())
        if step % 10 == 0:
            bar.set_postfix(loss=f"{losses[-1]:.3f}")
    return sum(losses[-20:]) / len(losses[-20:])


def _batches(encoded: list[list[int]], recipe: Recipe, pad: int) -> Iterator[torch.Tensor]:
    """Yield batches without end; every epoch packs the documents in a new order."""
    source = random.Random(recipe.seed)
    while True:
        order = source.sample(encoded, len(encoded))
        windows = pack(order, recipe.window, pad)
        windows = windows[torch.randperm(len(windows))]
        whole = max(len(windows) // recipe.batch, 1)
        yield from windows[: whole * recipe.batch].split(recipe.batch)


def encode(texts: list[str], tokenizer: PreTrainedTokenizerFast) -> list[list[int]]:
    """Return the tokens of each document, with BOS and EOS."""
    return [[*ids, tokenizer.eos_token_id] for ids in tokenizer(texts)["input_ids"]]


def settle(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, recipe: Recipe) -> None:
    """Train in place on the settling documents, for some steps from a lower peak of the learning rate."""
    later = replace(recipe, steps=recipe.settling_steps, peak=recipe.settling_peak, seed=recipe.seed + 1)
    torch.manual_seed(later.seed)
    train_model(model, encode(corpus.settling(recipe.settling_documents), tokenizer), later, tokenizer.pad_token_id)


def rebuild(output: Path, recipe: Recipe) -> dict[str, Any]:
    """Train tokenizer and model, write them to ``output`` in place of what is there, and return the provenance."""
    torch.set_num_threads(recipe.threads)
    torch.use_deterministic_algorithms(True)
    started = time.monotonic()
    texts = corpus.documents(recipe.documents)
    tokenizer = train_tokenizer(texts, recipe.vocabulary)
    encoded = encode(texts, tokenizer)
    model = new_model(recipe, tokenizer)
    loss = train_model(model, encoded, recipe, tokenizer.pad_token_id)
    settle(model, tokenizer, recipe)
    facts = corpus_facts(texts, encoded)
    facts["settling_sha256"] = corpus.checksum(corpus.settling(recipe.settling_documents))
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    model.generation_config = GenerationConfig(**ids)
    made = provenance(recipe, facts, model, loss)
    write_folder(output, model, tokenizer, made)
    print(f"{output}: {made['parameters']} parameters, loss {loss:.3f}, {time.monotonic() - started:.0f} s")
    return made


def corpus_facts(texts: list[str], encoded: list[list[int]]) -> dict[str, Any]:
    """Return the checksum and the sizes of a training corpus."""
    return {
        "sha256": corpus.checksum(texts),
        "documents": len(texts),
        "characters": sum(map(len, texts)),
        "tokens": sum(map(len, encoded)),
    }


def provenance(recipe: Any, facts: dict[str, Any], model: PreTrainedModel, loss: float) -> dict[str, Any]:
    """Return everything that determines a rebuilt model, for ``provenance.json``.

    Args:
        recipe: The dataclass of the recipe.
        facts: Those of the corpus.
        model: The trained model.
        loss: The mean loss of its last steps.
    """
    return {
        "recipe": asdict(recipe),
        "corpus": facts,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "final_loss": round(loss, 4),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "tokenizers": tokenizers.__version__,
        },
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }


def write_folder(
    output: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, provenance: dict[str, Any]
) -> None:
    """Write the folder of a model, whole or not at all."""
    with replacing(output) as fresh:
        model.save_pretrained(fresh)
        tokenizer.save_pretrained(fresh)
        for path in fresh.iterdir():
            path.chmod(0o644)  # safetensors writes files that only the owner can read
        write_json(fresh / "provenance.json", provenance)


def main(arguments: list[str] | None = None) -> None:
    """Read the command line and rebuild."""
    folder = backbone_folder()
    rebuild_as_asked("tools.embedded.rebuild", __doc__, folder, Recipe(), rebuild, arguments)


if __name__ == "__main__":
    run(main)
