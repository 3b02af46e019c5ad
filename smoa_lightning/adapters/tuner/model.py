"""Injection of our own layers into a model, following peft's contract for tuners."""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, cast

import torch
from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from torch import Tensor, nn
from tqdm import tqdm

from smoa_lightning.adapters.targets import matched_modules, targets_of_layers
from smoa_lightning.adapters.tuner.config import TunerConfig
from smoa_lightning.adapters.tuner.frozen import linear_shape
from smoa_lightning.adapters.tuner.layer import AdapterLayer
from smoa_lightning.adapters.tuner.mixed import rows_with_adapters
from smoa_lightning.adapters.tuner.update import UpdateLayer
from smoa_lightning.adapters.tuner.weighted import Combination, check_weights, combined_config, fill_combination
from smoa_lightning.common.console import no_bar
from smoa_lightning.common.errors import UserError


class AdapterModel(BaseTuner):
    """Adapts the target modules of a model; made by ``peft.get_peft_model(model, config)``.

    A method sets ``prefix`` and ``layer_class`` (or overrides :meth:`make_layer`).
    """

    tuner_layer_cls = AdapterLayer
    target_module_mapping: dict[str, list[str]] = {}  # noqa: RUF012  (peft reads it; see TunerConfig.default_targets)
    layer_class: type[AdapterLayer]

    def make_layer(self, target: nn.Module, name: str, config: Any) -> AdapterLayer:
        """Return the layer that replaces a target module."""
        return self.layer_class(target, name)

    def check_target(self, target: nn.Module, name: str, config: Any) -> None:
        """Refuse a module that cannot be adapted, before any module is replaced."""
        config.check_target(name, target)

    def prepare(self, adapter_name: str) -> None:
        """Compute the frozen state of an adapter in all layers, with a progress bar."""
        layers = [layer for layer in self.adapter_layers() if layer.frozen_state]
        # Layers that use one thread each run in parallel, the other layers one after another.
        parallel = [layer for layer in layers if layer.prepared_by_one_thread]
        serial = [layer for layer in layers if not layer.prepared_by_one_thread]

        def prepare(layer: AdapterLayer, prefetch: Future[None] | None = None) -> None:
            if prefetch is not None:
                prefetch.result()
            layer.prepare(adapter_name)

        pool = ThreadPoolExecutor(torch.get_num_threads())
        try:
            results = pool.map(prepare, parallel)
            done = itertools.chain(results, map(prepare, serial, _prefetch_fingerprints(serial, adapter_name, pool)))
            shown: dict[str, Any] = {"desc": "frozen state", "unit": "layer", "leave": False, "delay": 2}
            for _ in tqdm(done, total=len(layers), disable=no_bar(), **shown):
                pass
        finally:
            pool.shutdown(cancel_futures=True)

    def _prepare_adapter_config(self, peft_config: Any, model_config: dict[str, Any]) -> Any:
        if peft_config.target_modules is None:
            model_type = str(model_config.get("model_type"))
            peft_config.target_modules = peft_config.default_targets(model_type)
            if peft_config.target_modules is None:
                raise UserError(
                    f"{type(peft_config).__name__} has no default targets for the architecture {model_type!r}: set "
                    "target_modules to the names of its attention and feed-forward output layers."
                )
            if peft_config.target_modules == "all-linear":
                peft_config.target_modules = targets_of_layers(self.model, peft_config)
        adapted = tuple(f"{name}." for name, m in self.model.named_modules() if isinstance(m, BaseTunerLayer))
        for name, module in matched_modules(self.model, peft_config):
            if not name.startswith(adapted):  # parts of an adapted layer are not targets
                base = module.get_base_layer() if isinstance(module, BaseTunerLayer) else module
                self.check_target(base, name, peft_config.for_layer(name))
        peft_config.check_patterns(_adapted_names(self.model, peft_config))
        return peft_config

    @contextlib.contextmanager
    def _enable_peft_forward_hooks(self, *args: Any, **kwargs: Any) -> Iterator[None]:
        """Open the context in which peft runs a forward or a generation, with its arguments."""
        with rows_with_adapters(self.model, kwargs.get("adapter_names"), kwargs.get("num_beams")):
            yield

    def _cast_adapter_dtype(self, adapter_name: str, autocast_adapter_dtype: bool = True) -> None:
        """Give an adapter the dtype of its layers if ``autocast_adapter_dtype`` is false; it was made in float32."""
        super()._cast_adapter_dtype(adapter_name, autocast_adapter_dtype)
        if not autocast_adapter_dtype:
            for layer in self.adapter_layers():
                layer.cast_to_base(adapter_name)

    def add_weighted_adapter(
        self,
        adapters: Sequence[str],
        weights: Sequence[float],
        adapter_name: str,
        combination_type: str = "svd",
        svd_rank: int | None = None,
    ) -> None:
        """Add an inactive adapter whose update is the weighted sum of others (see ``tuner.weighted``).

        Args:
            adapters: Names of adapters of this model.
            weights: Their weights, of any sign.
            adapter_name: Name of the new adapter.
            combination_type: ``linear`` for an exact sum, ``svd`` for a truncated one; docs/methods.md lists what each
                method has.
            svd_rank: Rank of the result of ``svd``; absent means the largest rank of the adapters.

        Raises:
            UserError: The method or the settings of these adapters have no such sum.
        """
        combination = Combination(check_weights(adapters, weights), combination_type, svd_rank)
        config = combined_config(self, combination, adapter_name)
        self.peft_config[adapter_name] = config
        try:
            self.inject_adapter(self.model, adapter_name)
            fill_combination(self.model, adapter_name, combination)
        except UserError:
            self.delete_adapter(adapter_name)
            raise
        self.set_requires_grad(adapter_name, False)

    def adapter_layers(self) -> Iterator[AdapterLayer]:
        """Yield the adapted layers."""
        return (module for module in self.model.modules() if isinstance(module, AdapterLayer))

    def _post_injection_hook(self, model: nn.Module, config: Any, adapter_name: str) -> None:
        self._find_shared_weights()
        if isinstance(config.target_modules, set):
            config.target_modules = sorted(config.target_modules)  # so that every process saves the same file

    def merge_adapter(self, adapter_names: list[str] | None = None, safe_merge: bool = False) -> None:
        """Merge adapters into the weights; a layer with a shared weight gets its own until it is unmerged."""
        self._find_shared_weights()
        super().merge_adapter(adapter_names, safe_merge)

    def _unload_and_optionally_merge(self, *args: Any, **kwargs: Any) -> Any:
        self._find_shared_weights()
        return super()._unload_and_optionally_merge(*args, **kwargs)

    def _find_shared_weights(self) -> None:
        """Tell every layer whether another module uses its weight, since a merge would change that module."""
        uses = Counter(id(weight) for module in self.model.modules() for weight in module._parameters.values())
        for layer in self.adapter_layers():
            if isinstance(layer, UpdateLayer) and not layer.merged:
                layer.shares_weight = uses[id(layer.get_base_layer().weight)] > 1

    def _create_and_replace(
        self,
        peft_config: PeftConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        config = cast(TunerConfig, peft_config).for_layer(current_key)
        if isinstance(target, AdapterLayer):
            required = self.make_layer(target.get_base_layer(), current_key, config)
            if type(required) is not type(target):
                raise UserError(
                    f"adapter {adapter_name!r} cannot share layer {current_key} with its other adapters: they need "
                    f"{type(target).__name__}, this adapter needs {type(required).__name__}."
                )
            target.update_layer(adapter_name, config)
            return
        layer = self.make_layer(target, current_key, config)
        layer.set_adapter(adapter_name)
        layer.update_layer(adapter_name, config)
        if adapter_name not in self.active_adapters:
            layer.requires_grad_(False)  # an additional adapter is trained only after its activation
        self._replace_module(parent, target_name, layer, target)

    def _replace_module(self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module) -> None:
        setattr(parent, child_name, new_module)
        if isinstance(new_module, AdapterLayer):
            new_module.train(child.training)

    @classmethod
    def _get_adapter_state_dict(
        cls,
        model: nn.Module,
        config: PeftConfig,
        adapter_name: str,
        state_dict: dict[str, Tensor],
        unwanted_adapter_names: list[str],
    ) -> dict[str, Tensor]:
        """Select the saved tensors, and compute frozen state that no forward has used yet."""
        selected = super()._get_adapter_state_dict(model, config, adapter_name, state_dict, unwanted_adapter_names)
        for name, module in model.named_modules():
            if not isinstance(module, AdapterLayer):
                continue
            module.require_loaded()
            module.prepare(adapter_name)
            for state in module.frozen_state:
                container, key = getattr(module, state), f"{name}.{state}.{adapter_name}"
                if adapter_name in container and key in selected:
                    selected[key] = container[adapter_name]
        return selected

    @classmethod
    def _remap_adapter_state_dict_for_load(
        cls, model: nn.Module, config: PeftConfig, adapter_name: str, state_dict: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Refuse tensors of a wrong shape before any tensor is copied, then prefetch fingerprints."""
        remapped = super()._remap_adapter_state_dict_for_load(model, config, adapter_name, state_dict)
        layers = {name: module for name, module in model.named_modules() if isinstance(module, AdapterLayer)}
        for layer_name, layer in layers.items():
            for place, own in layer.saved_tensors(adapter_name).items():
                name = f"{layer_name}.{place}"
                loaded = remapped.get(name)
                if loaded is not None and loaded.shape != own.shape:
                    raise UserError(
                        f"the adapter file does not fit: {name} has shape {tuple(loaded.shape)} in the file, but the "
                        f"model and its {type(config).__name__} need {tuple(own.shape)}."
                    )
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            for prefetch in _prefetch_fingerprints(list(layers.values()), adapter_name, pool):
                prefetch.result()
        return remapped


def _adapted_names(model: nn.Module, config: Any) -> list[str]:
    """Return the names of the modules that a config will adapt; for ``all-linear`` those of all linear layers."""
    names = [name for name, _ in matched_modules(model, config)]
    return names or [name for name, module in model.named_modules() if linear_shape(module) is not None]


def _prefetch_fingerprints(
    layers: Sequence[AdapterLayer], adapter_name: str, pool: ThreadPoolExecutor
) -> list[Future[None]]:
    """Hash the weights of layers in parallel: one thread hashes a billion parameters in three seconds."""
    return [pool.submit(layer.prefetch_fingerprint, adapter_name) for layer in layers]
