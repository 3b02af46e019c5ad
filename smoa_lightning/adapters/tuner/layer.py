"""The part of a tuner layer that all methods share: containers of adapters, devices, activation."""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners._buffer_dict import BufferDict
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from smoa_lightning.adapters.tuner.config import TunerConfig


class AdapterLayer(nn.Module, BaseTunerLayer):
    """A module with named adapters around a frozen ``base_layer``.

    A method supplies :meth:`initial_parameters`. It lists its parameter containers in ``adapter_layer_names``, with the
    method's prefix, so that peft saves them, and its saved buffers in ``frozen_state``. Parameters are float32 for
    every dtype of the base layer, except float64 for a float64 base layer.

    Args:
        base_layer: The frozen module.
        name: Full name of the module in its model, used in messages.
    """

    adapter_layer_names: tuple[str, ...] = ()
    other_param_names: tuple[str, ...] = ("dropouts", "configs")
    frozen_state: tuple[str, ...] = ()

    def __init__(self, base_layer: nn.Module, name: str = "") -> None:
        super().__init__()
        self.base_layer = base_layer
        self.name = name
        for container in self.adapter_layer_names:
            setattr(self, container, nn.ParameterDict())
        for container in self.frozen_state:
            setattr(self, container, BufferDict(persistent=True))
        self.dropouts = nn.ModuleDict()
        self.configs: dict[str, TunerConfig] = {}
        self.merged_adapters: list[str] = []  # peft's class default would be shared by all instances
        self._disable_adapters = False

    # -------------------------------------------------------------------------------------- supplied by the method

    def initial_parameters(self, config: Any) -> dict[str, Tensor]:
        """Return container -> initial values of an adapter's parameters; together they must have no effect."""
        raise NotImplementedError

    def initial_state(self, config: Any) -> dict[str, Tensor]:
        """Return container -> initial values of an adapter's saved buffers."""
        return {}

    def prepare(self, adapter_name: str) -> None:
        """Compute an adapter's unset buffers from the frozen weights; does nothing by default."""

    def prefetch_fingerprint(self, adapter_name: str) -> None:
        """Compute the fingerprint that :meth:`prepare` or loading needs, in parallel with other layers.

        Does nothing by default.
        """

    @property
    def prepared_by_one_thread(self) -> bool:
        """Whether :meth:`prepare` uses one thread only, so that several layers can be prepared in parallel."""
        return False

    # ------------------------------------------------------------------------------------------------------ set-up

    def update_layer(self, adapter_name: str, config: Any) -> None:
        """Add an adapter that starts without effect."""
        for container, values in self.initial_parameters(config).items():
            getattr(self, container)[adapter_name] = nn.Parameter(values)
        for container, values in self.initial_state(config).items():
            getattr(self, container)[adapter_name] = values
        probability = getattr(config, "dropout", 0.0)
        self.dropouts[adapter_name] = nn.Dropout(probability) if probability > 0 else nn.Identity()
        self.configs[adapter_name] = config
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters)

    def parameter_dtype(self) -> torch.dtype:
        """Return float32, or float64 for a float64 base layer."""
        reference = self._reference()
        wide = reference is not None and reference.dtype == torch.float64
        return torch.float64 if wide else torch.float32

    def _reference(self) -> Tensor | None:
        """Return a tensor with the device and dtype of the base layer."""
        base: Any = self.get_base_layer()
        weight = getattr(base, "weight", None)
        return weight if isinstance(weight, Tensor) else next(base.parameters(), None)

    def _move_adapter_to_device_of_base_layer(self, adapter_name: str, device: torch.device | None = None) -> None:
        """Move an adapter to the base layer's device; unlike peft's method, keep its dtype: bfloat16 would round it."""
        reference = self._reference()
        if device is None:
            device = torch.device("cpu") if reference is None else reference.device
        for name in (*self.adapter_layer_names, "dropouts", *self.frozen_state):
            container = getattr(self, name)
            if adapter_name not in container or device.type == "meta":
                continue
            item = container[adapter_name]
            if not (isinstance(item, Tensor) and item.is_meta):
                container[adapter_name] = item.to(device)

    def saved_tensors(self, adapter_name: str) -> dict[str, Tensor]:
        """Return ``<container>.<adapter>`` -> tensor for the saved tensors of an adapter."""
        containers = {name: getattr(self, name) for name in (*self.adapter_layer_names, *self.frozen_state)}
        return {f"{name}.{adapter_name}": c[adapter_name] for name, c in containers.items() if adapter_name in c}

    def own_adapters(self) -> list[str]:
        """Return the active adapters of this layer, in the order of activation."""
        return [name for name in self.active_adapters if name in self.configs]

    def __repr__(self) -> str:
        return f"{type(self).__module__.split('.')[-2]}.{super().__repr__()}"
