"""Methods that need more than gradients of the loss are refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import peft
import pytest

from smoa_lightning.adapters.adalora import AdaLoraConfig
from smoa_lightning.adapters.unsupported import check_supported
from smoa_lightning.common.errors import UserError
from smoa_lightning.training.module import FineTuneModule

REFUSED: dict[str, Any] = {
    "ADAMSS": lambda: SimpleNamespace(peft_type="ADAMSS"),  # peft's own wants scikit-learn
    "LILY": lambda: peft.LilyConfig(),
    "init_lora_weights: 'eva'": lambda: peft.LoraConfig(init_lora_weights="eva"),
    "init_lora_weights: 'lora_ga'": lambda: peft.LoraConfig(
        init_lora_weights="lora_ga", lora_ga_config=peft.LoraGAConfig()
    ),
    "kasa_config": lambda: peft.LoraConfig(kasa_config=peft.KasaConfig()),
    "monteclora_config": lambda: peft.LoraConfig(monteclora_config=peft.MontecloraConfig()),
    "auxiliary_loss_weight": lambda: peft.ShadowConfig(task_type="CAUSAL_LM"),
    "boft_n_butterfly_factor": lambda: peft.BOFTConfig(boft_block_size=4, boft_n_butterfly_factor=2),
    "POLY": lambda: peft.PolyConfig(),
    "MULTITASK_PROMPT_TUNING": lambda: peft.MultitaskPromptTuningConfig(num_virtual_tokens=4),
}


@pytest.mark.filterwarnings("ignore:.*eva_config.*:UserWarning")  # peft's hint on settings that are refused anyway
@pytest.mark.parametrize("what", REFUSED)
def test_methods_that_need_more_are_refused_before_they_train_as_something_else(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smoa_lightning.adapters.unsupported.get_fbd_cuda", lambda: None)  # as without a CUDA compiler
    with pytest.raises(UserError, match=f"{what}"):
        FineTuneModule(adapter=REFUSED[what]())
    check_supported(AdaLoraConfig())
    check_supported(peft.LoraConfig(init_lora_weights="pissa"))
