"""Attention kernels of the hub: they are code, so a model may name one only if the user trusts it."""

from __future__ import annotations

from collections.abc import Iterator

from transformers import PretrainedConfig

from smoa_lightning.common.allowed_classes import FLAG, is_allowed
from smoa_lightning.common.errors import UserError


def check_kernels(architecture: PretrainedConfig, what: str) -> None:
    """Refuse the configuration of a model that names an attention kernel of the hub, in any of its parts.

    Args:
        architecture: The configuration.
        what: The model, for the message.

    Raises:
        UserError: It names such a kernel, and ``--allow_classes kernels`` was not given.
    """
    for part in _parts(architecture):
        kernel = str(part._attn_implementation)
        if "/" in kernel and not is_allowed("kernels"):
            raise UserError(
                f"{what} names the attention kernel {kernel!r}, which is code of the hub; if you trust it, "
                f"add --{FLAG} kernels"
            )


def _parts(architecture: PretrainedConfig) -> Iterator[PretrainedConfig]:
    """Yield a configuration and those inside it, such as ``text_config``."""
    yield architecture
    for name in architecture.sub_configs:
        inner = getattr(architecture, name, None)
        if isinstance(inner, PretrainedConfig):
            yield from _parts(inner)
