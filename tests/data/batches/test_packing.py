"""Packed rows against each row alone, on random models of several families and both attention kernels."""

from __future__ import annotations

import random

import pytest
import torch
import transformers
from peft import LoraConfig, PrefixTuningConfig, PromptTuningConfig, get_peft_model

from smoa_lightning.common.errors import UserError
from smoa_lightning.data.batches.collate import pad_rows
from smoa_lightning.data.batches.packing import PackedRow, collate_packed, pack_rows
from smoa_lightning.data.encoding.items import IGNORED, TokenRow
from smoa_lightning.training.packing_check import check_packing

VOCABULARY = 50
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": VOCABULARY}
GATED = {**SIZES, "intermediate_size": 24, "num_key_value_heads": 1, "use_cache": False}
NO_DROPOUT = {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}
FAMILIES = {
    "Llama": {**GATED, "max_position_embeddings": 64},
    # a window shorter than a row: packing must keep it
    "Mistral": {**GATED, "sliding_window": 3},
    "Qwen2": {**GATED, "use_sliding_window": True, "sliding_window": 3, "max_window_layers": 1},
    "GPT2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": VOCABULARY, "use_cache": False, **NO_DROPOUT},
    "GPTNeoX": {**SIZES, "intermediate_size": 24, "use_cache": False},
}
LORA = {"Llama": ["q_proj", "v_proj"], "GPT2": ["c_attn"]}


def make(family: str, attention: str = "eager", **settings):
    torch.manual_seed(0)
    # an initialisation this wide makes the outputs depend much on what a token sees
    config = getattr(transformers, f"{family}Config")(**{**FAMILIES[family], "initializer_range": 0.5, **settings})
    return transformers.AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()


def rows(lengths, masked=1):
    source = random.Random(len(lengths))
    made = []
    for length in lengths:
        ids = tuple(source.choices(range(3, VOCABULARY), k=length))
        hidden = min(masked, length)
        made.append(TokenRow(ids, (IGNORED,) * hidden + ids[hidden:]))
    return made


PACKS = [PackedRow(tuple(rows([7, 1, 5, 6]))), PackedRow(tuple(rows([4, 9]))), PackedRow(tuple(rows([3])))]


def forward(model, batch):
    return model(
        input_ids=batch["input_ids"], position_ids=batch["position_ids"], attention_mask=batch["attention_mask"]
    ).logits


def loss(logits, labels):
    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="sum")


# ---- packing


def waste(packs, max_length):
    return len(packs) * max_length - sum(map(len, packs))


@pytest.mark.parametrize("max_length", [20, 33, 512])
def test_each_row_is_whole_and_in_exactly_one_pack(max_length):
    whole = rows(random.Random(0).choices(range(1, 21), k=300))
    packs = pack_rows(whole, max_length, seed=0)
    assert all(0 < len(pack) <= max_length for pack in packs)
    packed = [row for pack in packs for row in pack.rows]
    assert len(packed) == 300
    assert {id(row) for row in packed} == {id(row) for row in whole}
    # 11/9 OPT + 6/9 is the bound of the method; no packing can be under the total length
    fewest = -(-sum(map(len, whole)) // max_length)
    assert fewest <= len(packs) <= 11 / 9 * fewest + 1


def test_packing_depends_on_the_seed_only():
    whole = rows(random.Random(0).choices(range(1, 21), k=100))
    first = pack_rows(whole, 32, seed=0)
    random.seed(3)
    assert list(pack_rows(whole, 32, seed=0)) == list(first)
    assert list(pack_rows(whole, 32, seed=1)) != list(first)


def test_packing_by_hand():
    packs = pack_rows(rows([4, 8, 1, 4, 2, 1]), 10, seed=0)
    assert sorted(sorted(len(row) for row in pack.rows) for pack in packs) in (
        [[1, 1, 8], [2, 4, 4]],
        [[1, 1, 4, 4], [2, 8]],
    )


def test_packs_at_the_edges():
    assert list(pack_rows([], 10, seed=0)) == []
    assert [len(pack) for pack in pack_rows(rows([10, 10]), 10, seed=0)] == [10, 10]
    with pytest.raises(UserError, match="a row of 11 tokens cannot be packed into sequences of 10"):
        pack_rows(rows([3, 11]), 10, seed=0)


def test_packing_many_rows_takes_seconds_at_most():
    whole = [TokenRow((1,) * n, (1,) * n) for n in random.Random(0).choices(range(1, 513), k=20_000)]
    assert waste(pack_rows(whole, 512, seed=0), 512) / sum(map(len, whole)) < 0.01


# ---- batches


def test_batch_by_hand():
    packs = [PackedRow((TokenRow((5, 6, 7), (5, 6, 7)), TokenRow((8, 9), (IGNORED, 9)))), PackedRow(tuple(rows([1])))]
    batch = collate_packed(packs, pad_id=2, pad_multiple=4)
    assert batch["input_ids"][0].tolist() == [5, 6, 7, 8, 9, 2, 2, 2]
    assert batch["labels"][0].tolist() == [IGNORED, 6, 7, IGNORED, 9, IGNORED, IGNORED, IGNORED]
    assert batch["position_ids"][0].tolist() == [0, 1, 2, 0, 1, 0, 0, 0]
    assert batch["input_ids"].shape == batch["labels"].shape == batch["position_ids"].shape == (2, 8)
    assert int(batch["num_tokens"]) == 6
    assert batch["attention_mask"] is None


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_each_row_alone(family, attention):
    model = make(family, attention).double()
    tolerance = {"eager": 3e-5, "sdpa": 1e-10}[attention]  # eager takes its softmax in float32 for any model is in
    batch = collate_packed(PACKS, pad_id=0, pad_multiple=16)
    with torch.no_grad():
        found = forward(model, batch)
        assert found.isfinite().all()
        for line, pack in enumerate(PACKS):
            start = 0
            for row in pack.rows:
                alone = model(torch.tensor([row.ids])).logits[0]
                torch.testing.assert_close(found[line, start : start + len(row)], alone, atol=tolerance, rtol=tolerance)
                start += len(row)
        joined = model(batch["input_ids"]).logits
    assert (joined[0, 7:19] - found[0, 7:19]).abs().max() > 0.1  # without the positions it would be something else


@pytest.mark.parametrize("masked", [0, 2])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("family", LORA)
def test_loss_and_gradients_of_an_adapter_are_those_of_padded_rows(family, attention, masked):
    config = LoraConfig(r=2, target_modules=LORA[family], init_lora_weights=False, fan_in_fan_out=family == "GPT2")
    model = get_peft_model(make(family, attention), config).train()
    whole = rows([7, 1, 5, 6, 4, 9, 3], masked)
    results = []
    for batch in (pad_rows(whole, 0), collate_packed(pack_rows(whole, 16, seed=0), 0, 8)):
        model.zero_grad()
        total = loss(
            model(**{k: v for k, v in batch.items() if k not in ("labels", "num_tokens")}).logits, batch["labels"]
        )
        total.backward()
        results.append((total.detach(), [p.grad.clone() for p in model.parameters() if p.requires_grad]))
    padded, packed = results
    torch.testing.assert_close(packed[0], padded[0], atol=1e-4, rtol=1e-5)
    assert len(packed[1]) == 2 * 2 * len(LORA[family])
    torch.testing.assert_close(packed[1], padded[1], atol=1e-4, rtol=1e-4)
    assert all(gradient.abs().max() > 0 for gradient in packed[1])


# ---- what it is right for


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_right_models_pass(family, attention, dtype):
    check_packing(make(family, attention).to(dtype))


def test_the_usual_small_initialisation_passes_too():
    for family in FAMILIES:
        for dtype in (torch.float32, torch.bfloat16):
            check_packing(make(family, "sdpa", initializer_range=0.02).to(dtype))


def test_an_adapter_passes_and_keeps_its_mode():
    model = get_peft_model(make("Llama"), LoraConfig(r=2, target_modules=["q_proj"], lora_dropout=0.5))
    model.train()
    model.get_base_model().model.layers[0].eval()
    modes, state = [module.training for module in model.modules()], torch.get_rng_state()
    check_packing(model)
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)


class Wrapped(torch.nn.Module):
    """A model that changes its arguments before it uses them."""

    def __init__(self, inner, change):
        super().__init__()
        self.inner, self.config, self.change = inner, inner.config, change

    def forward(self, input_ids, position_ids=None, **kwargs):
        return self.inner(input_ids, **self.change(position_ids, kwargs))

    def get_input_embeddings(self):
        return self.inner.get_input_embeddings()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_cache_is_refused(family, dtype):
    """With one, transformers makes no mask of the positions, and only the positions are right."""

    def cached(positions, kwargs):
        return {**kwargs, "position_ids": positions, "use_cache": True}

    check_packing(make(family, use_cache=True))  # the forward of training asks for none, even if the config says
    with pytest.raises(UserError, match=r"Wrapped .* change each other's outputs"):
        check_packing(Wrapped(make(family).to(dtype), cached))


def test_a_model_that_ignores_its_positions_is_refused():
    def deaf(positions, kwargs):
        return {**kwargs, "position_ids": None}

    for spread in (0.02, 0.5):
        with pytest.raises(UserError, match="Wrapped with attention 'eager' the rows"):
            check_packing(Wrapped(make("Llama", initializer_range=spread), deaf))


def test_models_without_positions_are_refused():
    config = transformers.BloomConfig(vocab_size=VOCABULARY, hidden_size=16, n_layer=1, n_head=2)
    with pytest.raises(UserError, match="BloomForCausalLM takes no position_ids"):
        check_packing(transformers.BloomForCausalLM(config))


def test_models_whose_mask_does_not_look_at_the_positions_are_refused():
    config = transformers.OPTConfig(
        **SIZES, ffn_dim=24, word_embed_proj_dim=16, use_cache=False, init_std=0.5, _attn_implementation="sdpa"
    )
    torch.manual_seed(0)
    with pytest.raises(UserError, match=r"OPTForCausalLM with attention 'sdpa' the rows"):
        check_packing(transformers.OPTForCausalLM(config))


def test_recurrent_layers_are_refused():
    config = transformers.FalconH1Config(
        **{k: v for k, v in GATED.items() if k != "vocab_size"},
        **{"vocab_size": VOCABULARY, "mamba_d_ssm": 16, "mamba_n_heads": 2, "mamba_d_head": 8, "mamba_d_state": 4},
        initializer_range=0.5,
    )
    torch.manual_seed(0)
    with pytest.raises(UserError, match="change each other's outputs"):
        check_packing(transformers.FalconH1ForCausalLM(config))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_dependence_as_small_as_that_of_jamba_is_refused(dtype):
    config = transformers.JambaConfig(
        **{**SIZES, "num_key_value_heads": 1}, intermediate_size=24, attn_layer_period=2, attn_layer_offset=1,
        num_experts=2, mamba_d_state=4, use_mamba_kernels=False,
    )  # fmt: skip
    torch.manual_seed(0)
    with pytest.raises(UserError, match=r"JambaForCausalLM has recurrent layers.* change each other's outputs"):
        check_packing(transformers.JambaForCausalLM(config).to(dtype))


@pytest.mark.parametrize("share", [1e-3, 1e-2])
def test_a_small_part_of_a_dependence_is_refused(share):
    class Leaking(Wrapped):
        def forward(self, input_ids, position_ids=None, **kwargs):
            found = self.inner(input_ids, position_ids=position_ids, **kwargs)
            found.logits = found.logits + share * found.logits.cumsum(1).roll(1, 1)
            return found

    with pytest.raises(UserError, match=r"Leaking .* change each other's outputs"):
        check_packing(Leaking(make("Llama", initializer_range=0.02), None))


@pytest.mark.parametrize(
    "config",
    [
        PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2),
        PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2),
    ],
    ids=["prompt", "prefix"],
)
def test_virtual_tokens_are_refused(config):
    with pytest.raises(UserError, match=r"(PROMPT|PREFIX)_TUNING puts virtual tokens"):
        check_packing(get_peft_model(make("Llama"), config))
