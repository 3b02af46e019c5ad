"""The part of a tuner layer that all methods share: containers of adapters, devices, activation."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from peft.tuners._buffer_dict import BufferDict
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from smoa_lightning.adapters.tuner.config import TunerConfig
from smoa_lightning.adapters.tuner.offloaded import offload_hook
from smoa_lightning.common.errors import UserError

BASE = "__base__"  # in ``adapter_names`` of a batch: a row without an adapter


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
    supplied: ClassVar[tuple[str, ...]] = ("initial_parameters",)  # the methods that every method must write
    Model: ClassVar[Any]  # of ``register_method``

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "other_param_names" not in vars(cls):  # what peft deletes with an adapter
            cls.other_param_names = tuple(dict.fromkeys((*cls.other_param_names, *cls.frozen_state)))

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
        self.adapters_of_rows: list[str] | None = None  # see ``tuner.mixed``
        self.register_load_state_dict_post_hook(_leave_inference_mode)  # type: ignore[no-untyped-call]

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

    def set_to_sum(self, adapter_name: str, weights: dict[str, float], kind: str) -> None:
        """Set the parameters of an adapter so that its update is the weighted sum of others (``tuner.weighted``)."""
        raise NotImplementedError

    @property
    def prepared_by_one_thread(self) -> bool:
        """Whether :meth:`prepare` uses one thread only, so that several layers can be prepared in parallel."""
        return False

    # ------------------------------------------------------------------------------------------------------ set-up

    def update_layer(self, adapter_name: str, config: Any) -> None:
        """Add an adapter that starts without effect."""
        with torch.inference_mode(False):  # an adapter that is made for inference can be trained later
            for container, values in self.initial_parameters(config).items():
                getattr(self, container)[adapter_name] = nn.Parameter(values)
            for container, values in self.initial_state(config).items():
                getattr(self, container)[adapter_name] = values
            probability = getattr(config, "dropout", 0.0)
            self.dropouts[adapter_name] = nn.Dropout(probability) if probability > 0 else nn.Identity()
            self.configs[adapter_name] = config
            self._move_adapter_to_device_of_base_layer(adapter_name)
            self.set_adapter(self.active_adapters)

    def leave_inference_mode(self, adapter_name: str) -> None:
        """Replace an adapter's tensors that were loaded or moved in torch's inference mode, which autograd refuses."""
        with torch.inference_mode(False):
            for name in (*self.adapter_layer_names, *self.frozen_state):
                container = getattr(self, name)
                if adapter_name in container and container[adapter_name].is_inference():
                    value = container[adapter_name]
                    copied = value.detach().clone()
                    trained = isinstance(value, nn.Parameter)
                    container[adapter_name] = nn.Parameter(copied, value.requires_grad) if trained else copied

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        _leave_inference_mode(self)
        return self

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
            hook = offload_hook(self.get_base_layer())
            device = torch.device("cpu") if reference is None else reference.device
            device = device if hook is None else torch.device(hook.execution_device)
        for name in (*self.adapter_layer_names, "dropouts", *self.frozen_state):
            container = getattr(self, name)
            if adapter_name not in container or device.type == "meta":
                continue
            item = container[adapter_name]
            if not (isinstance(item, Tensor) and item.is_meta):
                container[adapter_name] = item.to(device)

    def cast_to_base(self, adapter_name: str) -> None:
        """Give an adapter's parameters the dtype of the base layer, unless that is quantised."""
        reference = self._reference()
        if reference is None or not reference.is_floating_point():
            return
        for name in self.adapter_layer_names:
            container = getattr(self, name)
            if adapter_name in container:
                old = container[adapter_name]
                container[adapter_name] = nn.Parameter(old.detach().to(reference.dtype), old.requires_grad)

    def saved_tensors(self, adapter_name: str) -> dict[str, Tensor]:
        """Return ``<container>.<adapter>`` -> tensor for the saved tensors of an adapter."""
        containers = {name: getattr(self, name) for name in (*self.adapter_layer_names, *self.frozen_state)}
        return {f"{name}.{adapter_name}": c[adapter_name] for name, c in containers.items() if adapter_name in c}

    def require_loaded(self) -> None:
        """Refuse adapters that accelerate has moved away.

        Raises:
            UserError: It has; it loads a module's tensors only while the module is called, and containers never are.
        """
        container = getattr(self, self.adapter_layer_names[0])
        if "_hf_hook" in container.__dict__ and offload_hook(container) is not None:
            raise UserError(
                f"the adapter of layer {self.name} was offloaded by accelerate, which cannot load it again: offload "
                "the backbone first and attach the adapter to it afterwards, or load the backbone without offloading."
            )

    def rows_by_adapter(self, rows: int) -> dict[str, list[int]]:
        """Return adapter -> its rows of a batch with ``adapter_names``; ``__base__`` for rows without an adapter here.

        Raises:
            UserError: There are not as many names as rows, or adapters are merged.
        """
        names = self.adapters_of_rows or []
        if len(names) != rows:
            raise UserError(
                f"adapter_names has {len(names)} names, but layer {self.name} gets {rows} rows: give one name for each "
                "row. Layers that get tokens instead of rows, such as experts, do not support adapter_names."
            )
        if self.merged_adapters:
            raise UserError(
                f"adapter_names need separate adapters, but {', '.join(self.merged_adapters)} is merged into layer "
                f"{self.name}: call unmerge_adapter() first."
            )
        found: dict[str, list[int]] = {}
        for row, name in enumerate(names):
            found.setdefault(name if name in self.configs else BASE, []).append(row)
        return found

    def own_adapters(self) -> list[str]:
        """Return the active adapters of this layer, in the order of activation."""
        return [name for name in self.active_adapters if name in self.configs]

    def __repr__(self) -> str:
        return f"{type(self).__module__.split('.')[-2:][0]}.{super().__repr__()}"


def _leave_inference_mode(layer: AdapterLayer, _incompatible_keys: Any = None) -> None:
    for name in layer.configs:
        layer.leave_inference_mode(name)
