"""Which models are causal language models: each token sees only itself and the tokens before it."""

from __future__ import annotations

from typing import Any

from transformers import AutoModelForCausalLM, PretrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from smoa_lightning.common.errors import UserError

# kinds with a causal language model in transformers that nevertheless sees the tokens after a token
NOT_CAUSAL = ("xlnet", "cpmant")
ENCODERS = (*MODEL_FOR_MASKED_LM_MAPPING_NAMES, "bert-generation")  # causal with `is_decoder` or `causal` only
REMEDY = "choose a decoder, such as a Llama, Qwen or GPT-2 model"


def check_causal(architecture: PretrainedConfig, name: str) -> None:
    """Refuse a model whose tokens see later tokens, and a model without a causal language model in transformers.

    transformers also builds a causal language model from the config of an encoder such as BERT. Without
    ``is_decoder: true`` each token sees the whole text there, so a response would see itself.

    Args:
        architecture: The configuration of the model.
        name: Repository or folder, for the message.

    Raises:
        UserError: The message has the kind of the model.
    """
    settings: Any = architecture
    kind = settings.model_type
    if getattr(settings, "is_encoder_decoder", False):
        fault = f"is an encoder-decoder ({kind!r}), and not a causal language model"
    elif kind in NOT_CAUSAL:
        fault = f"is not causal ({kind!r}): each token sees the tokens after it, so a response would see itself"
    elif kind in ENCODERS and not _sees_the_past_only(settings):
        fault = f"is an encoder ({kind!r}): each token sees the tokens after it, so a response would see itself"
    elif type(architecture) not in AutoModelForCausalLM._model_mapping:
        fault = f"is of the kind {kind!r}, which has no causal language model in transformers"
    else:
        return
    raise UserError(f"the backbone {name!r} {fault}; {REMEDY}")


def _sees_the_past_only(settings: Any) -> bool:
    return bool(getattr(settings, "is_decoder", False) or getattr(settings, "causal", False))  # XLM has causal
