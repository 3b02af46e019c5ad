r"""The backbones and rows of ``golden_scores.json``, the same on any machine.

Weights come from numpy's legacy generator, whose stream is frozen, and do not depend on torch's or transformers' own
initialisation. The tokenizer is a byte-level BPE with a few merges, some of which take the space before a word, so that
prompt and response are cut inside running text; one of the two backbones puts BOS before it.

The file is made by the evaluation harness itself, from the root of the project:

    python -c "from tests.data.golden import write; write('golden')"
    for kind in plain bos; do python benchmarks/agree_with_lm_eval.py --backbone golden/$kind --data golden/rows \
        --tasks boolq piqa social_i_qa hellaswag winogrande arc_easy arc_challenge openbookqa --rows 5 \
        --output golden/out-$kind --golden tests/data/golden_scores.json; done
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from .made_rows import NUM_TRAIN, ROWS

KINDS = ("plain", "bos")
MERGES = "Ġ t, h e, Ġt he, Ġ a, i n, Ġ c, o l, e r, Ġ w, r e, a n, o n, Ġ s, e n, Ġ I, t s, in g, Ġa n, Ġ b, A n"
SPECIAL = ["<pad>", "<s>", "</s>"]


def tokenizer(adds_bos: bool) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE of a few merges."""
    merges = [tuple(merge.split(" ")) for merge in MERGES.split(", ")]
    tokens = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(merge) for merge in merges)]
    core = Tokenizer(models.BPE(vocab={token: index for index, token in enumerate(tokens)}, merges=merges))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    core.decoder = decoders.ByteLevel()
    if adds_bos:
        core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    names = dict(zip(("pad_token", "bos_token", "eos_token"), SPECIAL, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=core, model_max_length=2048, **names)


def write_backbone(folder: Path, kind: str) -> None:
    """Write model and tokenizer as a Hugging Face folder."""
    own = tokenizer(adds_bos=kind == "bos")
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(own), **sizes, **heads, **ids))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:  # the vectors are the norms' ones
                generator = numpy.random.RandomState(zlib.crc32(name.encode()))
                values = generator.standard_normal(tuple(parameter.shape)) / parameter.shape[1] ** 0.5
                parameter.copy_(torch.from_numpy(values * (8 if "embed" in name else 1.5)))
    model.save_pretrained(folder)
    own.save_pretrained(folder)


def write(folder: str | Path) -> None:
    """Write both backbones and the rows that are no training rows of ``rows.write_folder``."""
    folder = Path(folder)
    for kind in KINDS:
        write_backbone(folder / kind, kind)
    for task, rows in ROWS.items():
        file = folder / "rows" / task / "validation.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows[NUM_TRAIN:]]
        file.write_text("".join(lines), encoding="utf-8")
