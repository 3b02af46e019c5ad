"""A plugin of pytest that puts our configs into the test cases of peft's own suite.

The parametrised tests of the checkout keep their bodies. Their lists of configs are replaced by those of ``configs``,
and models of the hub by small random ones of the same architectures. All other tests are deselected. Failures for a
known reason (``exceptions``) are expected failures.
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

import configs
import exceptions
import models
import pytest
import torch

from smoa_lightning.adapters import BottleneckConfig, HyperAdaptConfig, MoraConfig, SMoAConfig, SurmConfig
from smoa_lightning.adapters.tuner import AdapterLayer

OURS = (SMoAConfig, MoraConfig, HyperAdaptConfig, SurmConfig, BottleneckConfig)
TASKS = {
    "test_decoder_models": ("CAUSAL_LM", models.DECODERS),
    "test_seq_classifier": ("SEQ_CLS", models.CLASSIFIERS),
    "test_feature_extraction_models": ("FEATURE_EXTRACTION", models.ENCODERS),
}
if importlib.util.find_spec("diffusers") is None:  # the suite imports one name of it
    sys.modules["diffusers"] = stub = types.ModuleType("diffusers")
    stub.StableDiffusionPipeline = type("StableDiffusionPipeline", (), {})  # type: ignore[attr-defined]


def _accept_init_weights(config_class: Any) -> None:
    """Accept the keyword of peft's configs that starts an adapter away from the identity."""
    original = config_class.__init__

    def init(self: Any, *args: Any, init_weights: bool = True, **settings: Any) -> None:
        original(self, *args, **settings)
        self.random_start = not init_weights

    config_class.__init__ = init


def _random_start(layer_class: Any) -> None:
    original = layer_class.update_layer

    def update_layer(self: Any, adapter_name: str, config: Any) -> None:
        original(self, adapter_name, config)
        if getattr(config, "random_start", False):
            with torch.no_grad():
                for name in self.adapter_layer_names:
                    parameter = getattr(self, name)[adapter_name]
                    parameter.add_(torch.randn_like(parameter) * 0.5)

    layer_class.update_layer = update_layer


for each in OURS:
    _accept_init_weights(each)
_random_start(AdapterLayer)


def _replacement(names: str, module: str) -> list[Any] | None:
    """Return our values for the parameters of one ``parametrize``, or None."""
    words = tuple(word.strip() for word in names.split(","))
    if words == ("test_name", "model_id", "config_cls", "config_kwargs"):
        return list(configs.custom_cases())
    if words == ("test_name", "tuner_method", "config_cls", "config_kwargs_1", "config_kwargs_2"):
        return list(configs.pairs())
    if module in TASKS:
        task, architectures = TASKS[module]
        if words == ("model_id",):
            return models.folders(Path(tempfile.gettempdir()) / "peft_suite_models", architectures)
        if words == ("config_cls", "config_kwargs"):
            return list(configs.of_transformers(task))
    elif words == ("config_cls",):
        return [HyperAdaptConfig, SurmConfig]
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: Any) -> None:
    """Replace the values of the test's parameters, in place, before pytest reads them."""
    module = metafunc.module.__name__.rpartition(".")[2]
    for mark in metafunc.definition.iter_markers("parametrize"):
        values = mark.args[1] if len(mark.args) > 1 else None
        if isinstance(mark.args[0], str) and isinstance(values, list):
            ours = _replacement(mark.args[0], module)
            if ours is not None:
                values[:] = ours


def pytest_collection_modifyitems(config: Any, items: list[Any]) -> None:
    """Keep the tests of our configs, and expect the known failures."""
    kept, dropped = [], []
    for item in items:
        values = item.callspec.params.values() if hasattr(item, "callspec") else ()
        ours = any(isinstance(value, type) and issubclass(value, OURS) for value in values)
        (kept if ours and item.originalname not in exceptions.LEFT_OUT else dropped).append(item)
    config.hook.pytest_deselected(items=dropped)
    items[:] = kept
    for item in kept:
        # peft 0.21 and its suite use deprecated names of transformers, and the suite turns warnings into errors
        item.add_marker(pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning"))
        known = exceptions.reason(item.originalname, item.callspec.params)
        if known is not None:
            item.add_marker(pytest.mark.xfail(reason=known.why, strict=known.always))
