"""The disk space of a run: its adapter, its checkpoints and its folder."""

from __future__ import annotations

from dataclasses import dataclass

from peft import PeftModel
from torch import nn

from smoa_lightning.adapters.parameters import adapter_state_names

ENTRY = 232  # bytes that torch.save adds for a tensor: name, place and checksum in the archive, and alignment
OPTIMIZER_TENSORS = 3  # of AdamW for each parameter: two moments and the step
REST = 24_000  # settings in a checkpoint; config, record and card of a run are about as small


@dataclass(frozen=True)
class DiskEstimate:
    """Bytes on disk, without logs and item scores, which grow with steps and rows.

    Attributes:
        adapter: A, the weights of one adapter folder (of the whole model after full fine-tuning).
        checkpoint: C, one checkpoint: trained tensors, frozen state of the adapter, and the optimizer's state.
    """

    adapter: int
    checkpoint: int

    @property
    def at_end(self) -> int:
        """The folder of a finished run, 2 C + 2 A: the best and the last checkpoint and adapter.

        Without selection rows it is C + 2 A, since the best checkpoint is a hard link to the last one.
        """
        return 2 * (self.checkpoint + self.adapter)

    @property
    def largest(self) -> int:
        """The most during training, while a third checkpoint folder is written in addition to two: 3 (2 C + A)."""
        return 3 * (2 * self.checkpoint + self.adapter)


def estimate_disk(network: nn.Module, adapter: int, optimizer: int) -> DiskEstimate:
    """Estimate the disk space of a run.

    Args:
        network: The backbone with its adapter, on any device, meta included.
        adapter: Bytes of the adapter's file.
        optimizer: Bytes of the optimizer's state.
    """
    if isinstance(network, PeftModel):
        names = adapter_state_names(network)
    else:
        names = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    state = network.state_dict()
    tensors = [state[name] for name in sorted(names & state.keys())]
    trained = sum(parameter.requires_grad for parameter in network.parameters())
    entries = len(tensors) + OPTIMIZER_TENSORS * trained
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    return DiskEstimate(adapter, size + optimizer + ENTRY * entries + REST if trained else 0)
