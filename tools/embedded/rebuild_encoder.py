"""Rebuild the embedded encoder, a small BERT, from the generated corpus and from texts like the rows of GLUE.

``python -m tools.embedded.rebuild_encoder [--output FOLDER] [--steps N] [--threads N]``

Its vocabulary is that of the embedded decoder and a mask. It is trained as BERT was: to fill in masked tokens, and to
tell whether one text follows another one. Bytes depend on the same things as those of the decoder (``rebuild``).
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, processors
from tqdm import tqdm
from transformers import BertConfig, BertForPreTraining, DataCollatorForLanguageModeling, PreTrainedTokenizerFast

from smoa_lightning.embedded import backbone_folder
from tools.embedded import corpus, glue
from tools.embedded.rebuild import BOS, EOS, PAD, corpus_facts, provenance, rate, write_folder
from tools.embedded.recipe_options import rebuild_as_asked, run

MASK = "<mask>"
# kinds of the corpus without the formats of the other tasks
KINDS = ("fact", "sheet", "material", "sharing", "comparison", "need", "story", "talk", "event", "consequence",
         "activity")  # fmt: skip
SENTENCES = re.compile(r"(?<=[.?!])\s+")


@dataclass(frozen=True)
class EncoderRecipe:
    """Everything that determines the rebuilt files, except the world, the vocabulary and the versions of libraries."""

    hidden: int = 128
    layers: int = 4
    heads: int = 4
    intermediate: int = 512
    context: int = 256
    documents: int = 30_000
    glue_documents: int = 15_000
    masked: float = 0.15
    batch: int = 32
    steps: int = 1600
    peak: float = 1e-3
    warmup: float = 0.05
    weight_decay: float = 0.05
    seed: int = 20_26
    threads: int = 1


def make_tokenizer(vocabulary: Path) -> PreTrainedTokenizerFast:
    """Return the tokenizer of the decoder with a mask and with special tokens at both ends of a text or a pair."""
    core = Tokenizer.from_file(str(vocabulary / "tokenizer.json"))
    core.add_special_tokens([MASK])
    core.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A {EOS}",
        pair=f"{BOS} $A {EOS} $B:1 {EOS}:1",
        special_tokens=[(token, core.token_to_id(token)) for token in (BOS, EOS)],
    )
    names = {"pad_token": PAD, "cls_token": BOS, "bos_token": BOS, "sep_token": EOS, "eos_token": EOS}
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        **names,
        mask_token=MASK,
        padding_side="right",
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def new_model(recipe: EncoderRecipe, tokenizer: PreTrainedTokenizerFast) -> BertForPreTraining:
    """Return the untrained model of the recipe, in fp32 and without dropout."""
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        intermediate_size=recipe.intermediate,
        max_position_embeddings=recipe.context,
        pad_token_id=tokenizer.pad_token_id,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    torch.manual_seed(recipe.seed)
    return BertForPreTraining(config)


def documents(recipe: EncoderRecipe) -> list[str]:
    """Return the training texts: statements of the corpus, and texts like the training rows of GLUE."""
    source = random.Random("encoder")
    weights = [corpus.KINDS[kind][0] for kind in KINDS]
    drawn = [corpus.KINDS[kind][1](source) for kind in source.choices(KINDS, weights, k=recipe.documents)]
    held = set(corpus.held_out_text())
    return [text for text in drawn if text not in held] + glue.documents(recipe.glue_documents)


def example(texts: list[str], place: int, source: random.Random) -> tuple[str, str | None, int]:
    """Return a document cut between two sentences, and whether its second part is that of another document (1).

    A document of one sentence has no second part, and the ignored class -100.
    """
    parts = SENTENCES.split(texts[place])
    if len(parts) == 1:
        return texts[place], None, -100
    cut = source.randrange(1, len(parts))
    first, second = " ".join(parts[:cut]), " ".join(parts[cut:])
    if source.random() < 0.5:
        return first, second, 0
    return first, SENTENCES.split(source.choice(texts))[-1], 1


def batches(
    texts: list[str], tokenizer: PreTrainedTokenizerFast, recipe: EncoderRecipe
) -> Iterator[dict[str, torch.Tensor]]:
    """Yield batches of texts of similar lengths without end; every epoch cuts and masks the documents anew."""
    source = random.Random(recipe.seed)
    collate = DataCollatorForLanguageModeling(tokenizer, mlm_probability=recipe.masked)
    while True:
        order = source.sample(range(len(texts)), len(texts))
        for start in range(0, len(order), 50 * recipe.batch):
            items = [example(texts, place, source) for place in order[start : start + 50 * recipe.batch]]
            items.sort(key=lambda item: len(item[0]) + len(item[1] or ""))
            chunks = [items[at : at + recipe.batch] for at in range(0, len(items), recipe.batch)]
            for chunk in source.sample(chunks, len(chunks)):
                yield collate([_features(tokenizer, item, recipe.context) for item in chunk])


def _features(tokenizer: PreTrainedTokenizerFast, item: tuple[str, str | None, int], longest: int) -> dict[str, Any]:
    first, second, follows = item
    made = tokenizer(first, second, truncation=True, max_length=longest, return_special_tokens_mask=True)
    return {**made, "next_sentence_label": follows}


def train_model(model: BertForPreTraining, given: Iterator[dict[str, torch.Tensor]], recipe: EncoderRecipe) -> float:
    """Train in place, in fp32; return the mean loss of the masked tokens over the last 20 steps.

    The loss of a step is the cross-entropy of the masked tokens plus that of the order of the two texts.
    """
    weights = list(model.parameters())
    groups = [
        {"params": [p for p in weights if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in weights if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=recipe.peak, betas=(0.9, 0.98))
    losses: list[float] = []
    cross_entropy = torch.nn.functional.cross_entropy
    for step in (bar := tqdm(range(recipe.steps), desc="training", unit="step")):
        batch = next(given)
        labels, follows = batch.pop("labels"), batch.pop("next_sentence_label")
        found, hidden = labels != -100, model.bert(**batch)
        # the logits of masked tokens only: those of all tokens take most of the time
        logits, order = model.cls(hidden.last_hidden_state[found], hidden.pooler_output)
        masked = cross_entropy(logits, labels[found])
        pairs = follows != -100
        loss = masked + cross_entropy(order[pairs], follows[pairs]) if pairs.any() else masked
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        for group in optimizer.param_groups:
            group["lr"] = rate(step, recipe.steps, recipe.warmup, recipe.peak)
        optimizer.step()
        losses.append(masked.item())
        if step % 10 == 0:
            bar.set_postfix(masked=f"{losses[-1]:.3f}", order=f"{loss.item() - losses[-1]:.3f}")
    return sum(losses[-20:]) / len(losses[-20:])


def rebuild(output: Path, recipe: EncoderRecipe) -> dict[str, Any]:
    """Train the model, write it with its tokenizer to ``output`` in place of what is there; return the provenance."""
    torch.set_num_threads(recipe.threads)
    torch.use_deterministic_algorithms(True)
    started = time.monotonic()
    texts = documents(recipe)
    tokenizer = make_tokenizer(backbone_folder())
    model = new_model(recipe, tokenizer)
    loss = train_model(model, batches(texts, tokenizer, recipe), recipe)
    made = provenance(recipe, corpus_facts(texts, tokenizer(texts)["input_ids"]), model, loss)
    model.config.hidden_dropout_prob = model.config.attention_probs_dropout_prob = 0.1  # fine-tuning has that of BERT
    write_folder(output, model.bfloat16(), tokenizer, made)
    print(f"{output}: {made['parameters']} parameters, loss {loss:.3f}, {time.monotonic() - started:.0f} s")
    return made


def main(arguments: list[str] | None = None) -> None:
    """Read the command line and rebuild."""
    folder = backbone_folder("sequence_classification")
    rebuild_as_asked("tools.embedded.rebuild_encoder", __doc__, folder, EncoderRecipe(), rebuild, arguments)


if __name__ == "__main__":
    run(main)
