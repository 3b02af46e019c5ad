"""FSDP2: the weights of the backbone are divided over the processes, and gathered layer by layer for each product.

Frozen state of an adapter is computed from whole weights, so a model is divided after the base model was scored and
the adapter was attached and prepared. The adapter itself is whole in every process, since it is small: its parameters,
optimizer state, checkpoints and gradient norm are those of one process, and its gradients are averaged before a step.
Full fine-tuning divides its trained weights, gradients and optimizer state.

Processes score different numbers of rows. So the weights are gathered once before an evaluation, and divided after it.
"""

from __future__ import annotations

import contextlib
import datetime
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.distributed
from lightning.pytorch.strategies import ModelParallelStrategy, Strategy, StrategyRegistry
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.distributed.constants import default_pg_timeout
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from smoa_lightning.common.errors import UserError

if TYPE_CHECKING:
    from smoa_lightning.training.module import FineTuneModule

NAME = "fsdp2"


@StrategyRegistry.register(NAME, description="FSDP2: weights divided over the processes")
class ShardedStrategy(ModelParallelStrategy):
    """Lightning's strategy of FSDP2, for data parallelism, with the checkpoints of one process.

    A checkpoint is one file with whole tensors: a run with one process can load it.

    Args:
        data_parallel_size: Number of processes that share the rows: ``auto`` or all of them.
        tensor_parallel_size: ``auto`` or 1: tensors of one product are not divided.
        save_distributed_checkpoint: Has no effect: a checkpoint is always one file.
        process_group_backend: Backend of torch.distributed; ``null`` is nccl on GPUs, else gloo.
        timeout: Longest wait for another process.
    """

    def __init__(
        self,
        data_parallel_size: Literal["auto"] | int = "auto",
        tensor_parallel_size: Literal["auto"] | int = "auto",
        save_distributed_checkpoint: bool = False,
        process_group_backend: str | None = None,
        timeout: datetime.timedelta | None = default_pg_timeout,
    ) -> None:
        if tensor_parallel_size not in ("auto", 1):
            raise UserError(
                f"trainer.strategy: tensor_parallel_size is {tensor_parallel_size}, but tensor parallelism is not "
                "supported: set it to 1"
            )
        super().__init__(data_parallel_size, 1, False, process_group_backend, timeout)
        self._whole = contextlib.ExitStack()

    def setup_environment(self) -> None:
        """Connect the processes.

        Raises:
            UserError: ``data_parallel_size`` is not the number of processes.
        """
        processes = self.num_processes * self.num_nodes
        if self._data_parallel_size not in ("auto", processes):
            raise UserError(
                f"trainer.strategy: data_parallel_size is {self._data_parallel_size}, but the run has {processes} "
                f"processes: set it to {processes} or auto"
            )
        self._data_parallel_size = processes
        super().setup_environment()

    # ------------------------------------------------------------------------------------------------- checkpoints

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Return the state of the module with whole tensors; all processes must call this."""
        assert self.lightning_module is not None
        return {name: whole(value) for name, value in self.lightning_module.state_dict().items()}

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        """Return the state of an optimizer with whole tensors; all processes must call this."""
        state: dict[str, Any] = Strategy.optimizer_state(self, optimizer)
        return {**state, "state": {i: {k: whole(v) for k, v in own.items()} for i, own in state["state"].items()}}

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        """Write one file, in the first process."""
        Strategy.save_checkpoint(self, checkpoint, filepath, storage_options)

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        """Whether Lightning restores a run after it has made the data loaders, which would then start at row 0."""
        return False

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Whether Lightning restores the optimizer as for one process."""
        return True

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a checkpoint with whole tensors."""
        return Strategy.load_checkpoint(self, checkpoint_path, weights_only=weights_only is not False)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Load whole tensors into the module, each process its part."""
        assert self.lightning_module is not None
        own = self.lightning_module.state_dict()
        parts = {name: _part(value, own.get(name)) for name, value in checkpoint["state_dict"].items()}
        self.lightning_module.load_state_dict(parts, strict=strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Load whole tensors into the optimizers, each process its part."""
        for optimizer, saved in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            state = {
                number: {key: _part(value, parameters[number]) for key, value in own.items()}
                for number, own in saved["state"].items()
            }
            optimizer.load_state_dict({**saved, "state": state})

    # ------------------------------------------------------------------------------------------------- evaluations

    def _gather(self) -> None:
        assert self.lightning_module is not None
        self._whole.close()
        self._whole.enter_context(gathered_weights(self.lightning_module))

    def _divide(self) -> None:
        self._whole.close()

    def on_validation_start(self) -> None:
        """Gather the weights."""
        self._gather()

    def on_validation_end(self) -> None:
        """Divide the weights."""
        self._divide()

    def on_test_start(self) -> None:
        """Gather the weights."""
        self._gather()

    def on_test_end(self) -> None:
        """Divide the weights."""
        self._divide()

    def on_predict_start(self) -> None:
        """Gather the weights."""
        self._gather()

    def on_predict_end(self) -> None:
        """Divide the weights."""
        self._divide()


def whole(value: Any) -> Any:
    """Return a tensor of all parts, on the CPU, if the value is a part; all processes must call this."""
    return value.full_tensor().cpu() if isinstance(value, DTensor) else value


def _part(value: Any, own: Any) -> Any:
    """Return this process's part of a whole tensor, divided like ``own``."""
    if not (isinstance(value, Tensor) and isinstance(own, DTensor)) or value.shape != own.shape:
        return value
    tensor = value.to(own.device)
    return distribute_tensor(tensor, own.device_mesh, own.placements, src_data_rank=None)


def own_strategy(strategy: Any) -> Any:
    """Return the setting ``trainer.strategy`` with :class:`ShardedStrategy` in the place of Lightning's class."""
    name = strategy if isinstance(strategy, str) else getattr(strategy, "class_path", "")
    if name.rpartition(".")[2] != ModelParallelStrategy.__name__:
        return strategy
    if isinstance(strategy, str):
        return NAME
    strategy.class_path = f"{ShardedStrategy.__module__}.{ShardedStrategy.__name__}"
    return strategy


def check_shardable(strategy: Any, quantization: str | None) -> None:
    """Refuse a model that FSDP2 cannot divide, and Lightning's own strategy for FSDP2.

    Raises:
        UserError: The message has the reason.
    """
    if not isinstance(strategy, ModelParallelStrategy):
        return
    if not isinstance(strategy, ShardedStrategy):
        raise UserError(
            "trainer.strategy: ModelParallelStrategy alone divides no weights: use "
            f"smoa_lightning.training.sharding.ShardedStrategy, or {NAME} in a configuration"
        )
    if "ignored_params" not in inspect.signature(fully_shard).parameters:
        raise UserError(f"trainer.strategy: {NAME} needs torch 2.7 or later, and this is torch {torch.__version__}")
    if strategy.precision_plugin.precision == "16-mixed":
        raise UserError(
            f"trainer.strategy: {NAME} cannot train in 16-mixed, since each process would scale its gradients alone: "
            "set trainer.precision to bf16-mixed or 32-true"
        )
    if quantization is not None:
        raise UserError(
            f"trainer.strategy: {NAME} cannot divide weights in {quantization}, which have their own layout: use ddp, "
            "or model.backbone.quantization null"
        )


def shard(module: FineTuneModule) -> None:
    """Divide the weights of a complete model over the processes, once.

    Before the processes are connected, and under other strategies, nothing is done.
    """
    trainer = module._trainer
    if trainer is None or module.frozen or module.scoring_base_model or _shards(module.network):
        return
    check_shardable(trainer.strategy, module.backbone_config.quantization)
    if not isinstance(trainer.strategy, ShardedStrategy) or trainer.strategy._device_mesh is None:
        return
    network: Any = module.network
    mesh = trainer.strategy.device_mesh["data_parallel"]
    ignored = _whole_parameters(network) if module.adapter_config is not None else set()
    base = network.get_base_model() if hasattr(network, "get_base_model") else network
    classes = set(base._no_split_modules or ())
    layers = [layer for layer in base.modules() if type(layer).__name__ in classes]
    for layer in [*layers, network]:
        fully_shard(layer, mesh=mesh, reshard_after_forward=True, ignored_params=ignored)
    network._get_fsdp_state()._lazy_init()  # generation may run the layers before the network itself


def _whole_parameters(network: nn.Module) -> set[nn.Parameter]:
    """Return the parameters that every process has: trained ones, and adapted embeddings, which peft saves."""
    adapted = [m for m in network.modules() if isinstance(m, BaseTunerLayer) and isinstance(m, nn.Module)]
    embeddings = [e for layer in adapted for e in layer.modules() if isinstance(e, nn.Embedding)]
    found = {parameter for parameter in network.parameters() if parameter.requires_grad}
    return found | {parameter for embedding in embeddings for parameter in embedding.parameters()}


def _shards(network: nn.Module) -> list[Any]:
    return [part for part in network.modules() if isinstance(part, FSDPModule)]


@contextlib.contextmanager
def gathered_weights(module: FineTuneModule | Any) -> Iterator[None]:
    """Give every process the whole weights; all processes must enter this at the same time."""
    shards = [] if module.model is None else _shards(module.model)
    if not shards:
        yield
        return
    with torch.inference_mode(False), torch.no_grad():  # training also uses what an evaluation gathers
        for part in shards:
            part.set_reshard_after_forward(False, recurse=False)
            part.unshard()
    try:
        yield
    finally:
        for part in shards:
            part.set_reshard_after_forward(True, recurse=False)
            part.reshard()


def whole_weights(module: FineTuneModule) -> dict[str, Tensor] | None:
    """Return the state of a fully fine-tuned model with whole tensors, else ``None``; all processes must call this."""
    if module.adapter_config is not None or not _shards(module.network):
        return None
    values = module.network.state_dict(keep_vars=True)
    gathered = {id(value): whole(value.detach()) for value in values.values()}  # tied weights stay one tensor
    return {name: gathered[id(value)] for name, value in values.items()}


def average_gradients(strategy: Any, parameters: Sequence[nn.Parameter]) -> None:
    """Average the gradients of the parameters that every process has; DDP and FSDP2 have averaged the others."""
    own = [parameter for parameter in parameters if not isinstance(parameter, DTensor)]
    if not isinstance(strategy, ShardedStrategy) or not own or strategy.world_size == 1:
        return
    known = torch.tensor([parameter.grad is not None for parameter in own], dtype=torch.int32, device=own[0].device)
    torch.distributed.all_reduce(known)
    shared = [parameter for parameter, count in zip(own, known.tolist(), strict=True) if count]
    for dtype in sorted({parameter.dtype for parameter in shared}, key=str):
        group = [parameter for parameter in shared if parameter.dtype == dtype]
        for parameter in group:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        flat = torch.cat([parameter.grad.flatten() for parameter in group])  # type: ignore[union-attr]
        torch.distributed.all_reduce(flat)
        flat /= strategy.world_size
        for parameter, average in zip(group, flat.split([p.numel() for p in group]), strict=True):
            parameter.grad.copy_(average.view_as(parameter))  # type: ignore[union-attr]


def whole_norm(gradients: Sequence[Tensor]) -> float:
    """Return the norm of all gradients together, of all their parts."""
    return float(whole(torch.nn.utils.get_total_norm(gradients)))
