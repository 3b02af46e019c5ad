"""Virtual tokens and adapters in scoring and generation, from a run's folder: alone, in batches, and by hand."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from transformers import (
    AutoModelForCausalLM,
    DynamicCache,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
)

from smoa_lightning.__main__ import main
from smoa_lightning.adapters import attach
from smoa_lightning.common.errors import UserError
from smoa_lightning.evaluation.decoding import continuations, left_padded
from smoa_lightning.evaluation.scoring import row_log_likelihoods, target_logits
from smoa_lightning.training.adapter_folder import load_adapter

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
PAD, EOS = 0, 2
VIRTUAL = ["--model.adapter.num_virtual_tokens", "5"]
FLAGS = {
    "prefix": VIRTUAL,
    "prompt": VIRTUAL,
    "ptuning": VIRTUAL,
    "lora": [],
    "full": [],
    "adalora": ["--model.adapter.init_r", "6", "--model.adapter.target_r", "2"],
    "smoa_blocks": ["--model.adapter.r", "4"],
}
VIRTUAL_TOKENS = ["prefix", "prompt", "ptuning"]
PROMPTS = [[1, 70, 80, 90], [1, 99, 88, 77, 66, 55, 44], [1, 33]]


@pytest.fixture(scope="module")
def lively_backbone(tmp_path_factory: pytest.TempPathFactory, byte_tokenizer: PreTrainedTokenizerFast) -> Path:
    """Weights large enough that greedy continuations are not one token over and over."""
    folder = tmp_path_factory.mktemp("lively")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(byte_tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        pad_token_id=PAD,
        bos_token_id=1,
        eos_token_id=EOS,
        initializer_range=0.3,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    byte_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def run(lively_backbone: Path, piqa_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Train a strategy for three steps with its shipped file, once; return the run's folder."""

    @functools.cache
    def trained(name: str) -> Path:
        root = tmp_path_factory.mktemp(name)
        status = main(
            [
                *("fit", "--config", str(EXPERIMENTS / "piqa.yaml")),
                *("--config", str(EXPERIMENTS / "adapters" / f"{name}.yaml"), *FLAGS[name]),
                *("--model.backbone.source", "local", "--model.backbone.path", str(lively_backbone)),
                *("--data.source", "local", "--data.path", str(piqa_folder), "--run.root", str(root)),
                *("--data.batch_size", "8", "--data.selection_rows", "8", "--run.score_base", "false"),
                *("--run.score_report", "false", "--trainer.max_steps", "3", "--model.optimizer.init_args.lr", "0.05"),
                *("--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"),
            ]
        )
        assert status == 0
        (record,) = root.glob("*/*/record.json")
        return record.parent

    return trained


def greedy_by_full_forwards(model: Any, prompt: list[int], count: int) -> list[int]:
    ids = list(prompt)
    for _ in range(count):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long))
        following = int(logits.logits[0, -1].argmax())
        if following == EOS:
            break
        ids.append(following)
    return ids[len(prompt) :]


@pytest.mark.filterwarnings("ignore:Position ids are not supported:UserWarning")  # peft, of its own virtual tokens
@pytest.mark.parametrize("name", FLAGS)
def test_generation_equals_the_argmax_over_full_forwards(name: str, run: Callable[[str], Path]) -> None:
    """For the adapter's own ``generate`` on one prompt, and for ours on prompts of unequal length together."""
    model, _ = load_adapter(run(name))
    expected = [greedy_by_full_forwards(model, prompt, 8) for prompt in PROMPTS]
    assert len({tuple(row) for row in expected}) == len(PROMPTS)
    assert len({token for row in expected for token in row}) > 3
    for prompt, tokens in zip(PROMPTS, expected, strict=True):
        made = model.generate(
            input_ids=torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=8,
            do_sample=False,
        )[0].tolist()
        assert made[len(prompt) :][: len(tokens)] == tokens
    assert continuations(model, PROMPTS, PAD, EOS, max_new_tokens=8) == expected


@pytest.mark.parametrize("name", ["prefix", "prompt", "ptuning", "smoa_blocks"])
def test_beam_search_gives_the_same_in_a_batch_as_alone(name: str, run: Callable[[str], Path]) -> None:
    model, _ = load_adapter(run(name))
    together = continuations(model, PROMPTS, PAD, EOS, max_new_tokens=6, num_beams=3)
    alone = [continuations(model, [prompt], PAD, EOS, max_new_tokens=6, num_beams=3)[0] for prompt in PROMPTS]
    assert together == alone


@pytest.mark.parametrize("name", ["prefix", "prompt", "smoa_blocks"])
def test_the_widest_beam_finds_the_most_likely_pair_of_tokens(name: str, run: Callable[[str], Path]) -> None:
    """By the mean log-probability over all pairs, and over EOS alone, each from a full forward."""
    model, tokenizer = load_adapter(run(name))
    words = len(tokenizer)
    for prompt in PROMPTS:
        with torch.no_grad():
            rows = torch.tensor([[*prompt, token] for token in range(words)])
            logprobs = model(input_ids=rows, attention_mask=torch.ones_like(rows)).logits.double().log_softmax(-1)
        first, second = logprobs[0, -2], logprobs[:, -1]
        pairs = (first[:, None] + second) / 2
        pairs[EOS] = -torch.inf
        best = divmod(int(pairs.argmax()), words)
        expected = [] if first[EOS] > pairs.max() else [token for token in best if token != EOS]
        assert continuations(model, [prompt], PAD, EOS, max_new_tokens=2, num_beams=words) == [expected]


def by_hand_likelihood(logits: torch.Tensor, targets: list[int]) -> float:
    """Sum the log-probabilities of the last tokens of a row, each predicted by the logits one before."""
    logprobs = logits.double().log_softmax(-1)[-len(targets) - 1 : -1]
    return float(logprobs.gather(1, torch.tensor(targets)[:, None]).sum())


@pytest.mark.parametrize("name", ["prompt", "ptuning"])
def test_peft_still_puts_virtual_tokens_before_the_padding(name: str, run: Callable[[str], Path]) -> None:
    """If this fails, peft's own ``generate`` has learned left padding, and ``continuations`` can use it."""
    model, _ = load_adapter(run(name))
    ids, mask = left_padded(PROMPTS, PAD)
    with pytest.warns(UserWarning, match="Position ids are not supported"):
        made = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=8, do_sample=False)[:, ids.shape[1] :]
    ours = continuations(model, PROMPTS, PAD, EOS, max_new_tokens=8)
    assert [row[: len(o)] for row, o in zip(made.tolist(), ours, strict=True)] != ours


SIZES: dict[str, Any] = {"vocab_size": 64, "pad_token_id": PAD, "bos_token_id": 1, "eos_token_id": EOS}
LLAMA_SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
FAMILIES: dict[str, PreTrainedConfig] = {
    "absolute positions": GPT2Config(n_embd=32, n_layer=2, n_head=4, initializer_range=0.3, **SIZES),
    "scaled embeddings": GemmaConfig(
        **LLAMA_SIZES, num_key_value_heads=2, head_dim=8, initializer_range=0.3, hidden_activation="gelu", **SIZES
    ),
    "partial rotation": GPTNeoXConfig(**LLAMA_SIZES, initializer_range=0.3, **SIZES),
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", [peft.PromptTuningConfig, peft.PrefixTuningConfig])
def test_virtual_tokens_in_other_families(method: Any, family: str) -> None:
    torch.manual_seed(0)
    plain = AutoModelForCausalLM.from_config(FAMILIES[family])
    model = attach(plain, method(num_virtual_tokens=5), seed=0).eval()
    prompts = [[1, 5, 6, 7], [1, 9, 8, 7, 6, 5, 4], [1, 33]]
    expected = [greedy_by_full_forwards(model, prompt, 6) for prompt in prompts]
    assert len({tuple(row) for row in expected}) > 1
    assert continuations(model, prompts, PAD, EOS, max_new_tokens=6) == expected


# ------------------------------------------------------------------------------------------------------ scoring

CHOICES = [[50, 60, 70], [51, 61], [52], [53, 63, 73, 83, 93]]


def batch_of(prompts: list[list[int]], choices: list[list[int]]) -> dict[str, torch.Tensor]:
    """Right-padded rows with labels on the choices, as the data module makes them."""
    length = max(len(p) + len(c) for p, c in zip(prompts, choices, strict=True))
    ids, labels = torch.zeros(len(prompts), length, dtype=torch.long), torch.full((len(prompts), length), -100)
    mask = torch.zeros_like(ids)
    for row, (prompt, choice) in enumerate(zip(prompts, choices, strict=True)):
        ids[row, : len(prompt) + len(choice)] = torch.tensor(prompt + choice)
        labels[row, len(prompt) : len(prompt) + len(choice)] = torch.tensor(choice)
        mask[row, : len(prompt) + len(choice)] = 1
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


@torch.no_grad()
def scores(model: Any, prompts: list[list[int]], choices: list[list[int]]) -> torch.Tensor:
    return row_log_likelihoods(*target_logits(model, batch_of(prompts, choices)))[0]


@pytest.mark.parametrize("name", VIRTUAL_TOKENS)
def test_scores_do_not_depend_on_batch_or_padding(name: str, run: Callable[[str], Path]) -> None:
    model, _ = load_adapter(run(name))
    prompts = [*PROMPTS, PROMPTS[0]]
    together = scores(model, prompts, CHOICES)
    alone = torch.cat([scores(model, [p], [c]) for p, c in zip(prompts, CHOICES, strict=True)])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-5)
    with model.disable_adapter():
        assert (scores(model, prompts, CHOICES) - together).abs().min() > 1e-2


@pytest.mark.parametrize("name", VIRTUAL_TOKENS)
def test_scores_are_those_of_the_plain_model_with_the_virtual_tokens_put_in_by_hand(
    name: str, run: Callable[[str], Path], lively_backbone: Path
) -> None:
    """Embeddings go before the row's own; keys and values go into the cache, head by head; all in float64."""
    model, _ = load_adapter(run(name))
    trained = next(p for n, p in model.prompt_encoder.named_parameters() if n.endswith("embedding.weight"))
    plain = AutoModelForCausalLM.from_pretrained(lively_backbone, dtype=torch.float64).eval()
    virtual = trained.detach().double()
    count = virtual.shape[0]
    measured = scores(model, [*PROMPTS, PROMPTS[0]], CHOICES)
    for prompt, choice, score in zip([*PROMPTS, PROMPTS[0]], CHOICES, measured, strict=True):
        ids = torch.tensor([prompt + choice])
        if name == "prefix":
            layers = virtual.reshape(count, 2, 2, 2, 8).permute(
                1, 2, 3, 0, 4
            )  # layer, key or value, head, token, width
            cache = DynamicCache()
            for index, (key, value) in enumerate(layers):
                cache.update(key[None], value[None], index)
            positions = torch.arange(count, count + ids.shape[1])[None]
            with torch.no_grad():
                logits = plain(input_ids=ids, past_key_values=cache, position_ids=positions).logits[0]
        else:
            words = plain.get_input_embeddings()(ids)
            with torch.no_grad():
                logits = plain(inputs_embeds=torch.cat([virtual[None], words], dim=1)).logits[0, count:]
        assert by_hand_likelihood(logits, choice) == pytest.approx(score.item(), abs=1e-3)


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("name", ["lora", "base"])
def test_generation_settings_of_the_backbone_change_no_reply(name: str, beams: int, run: Callable[[str], Path]) -> None:
    model, _ = load_adapter(run("smoa_blocks" if name == "base" else name))
    base = model.get_base_model()
    model = base if name == "base" else model
    expected = continuations(model, PROMPTS, PAD, EOS, max_new_tokens=6, num_beams=beams)
    own = transformers.GenerationConfig(
        min_new_tokens=5, suppress_tokens=[row[0] for row in expected if row], length_penalty=-9.0, max_time=0.0
    )
    base.generation_config = own
    assert continuations(model, PROMPTS, PAD, EOS, max_new_tokens=6, num_beams=beams) == expected
    assert base.generation_config is own


@pytest.mark.parametrize(("kind", "beams", "words"), [
    ("bart", 1, "BartForCausalLM cannot write replies: IndexError: "),  # its cache counts the layers of the encoder
    ("codegen", 1, "CodeGenForCausalLM cannot write replies: RuntimeError: "),  # wants a multiple of four heads
    ("rwkv", 2, "RwkvForCausalLM cannot write replies with num_beams: 2: ValueError: "),
])  # fmt: skip
def test_a_model_that_cannot_generate_is_named_in_one_sentence(kind: str, beams: int, words: str) -> None:
    sizes: dict[str, dict[str, Any]] = {
        "bart": {"d_model": 8, "decoder_layers": 2, "encoder_layers": 1, "decoder_attention_heads": 2,
                 "decoder_ffn_dim": 8, "is_encoder_decoder": False},
        "codegen": {"n_embd": 16, "n_layer": 1, "n_head": 2, "rotary_dim": 4},
        "rwkv": {"hidden_size": 8, "num_hidden_layers": 2},
    }  # fmt: skip
    settings = transformers.CONFIG_MAPPING[kind](vocab_size=20, **sizes[kind])
    model = transformers.AutoModelForCausalLM.from_config(settings).eval()
    with pytest.raises(UserError, match=f"^the model {words}"):
        continuations(model, [[5, 6], [7]], 1, 2, max_new_tokens=2, num_beams=beams)
