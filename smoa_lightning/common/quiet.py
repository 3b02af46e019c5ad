"""Filters for messages of libraries that do not help a user."""

from __future__ import annotations

import logging
import warnings


def quiet_libraries() -> None:
    """Hide messages of libraries that do not help a user: each is about library code or a product."""
    warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)  # lightning 2.6, torch 2.13
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)  # peft 0.21
    warnings.filterwarnings("ignore", message=".*have invalid shape.*")  # peft, a layer that AdaLoRA cut to rank 0
    # BOFT without a CUDA compiler: adapters.unsupported has refused more than one factor
    warnings.filterwarnings("ignore", message=".*(load the CUDA extension|boft_n_butterfly_factor to 1).*")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")  # rows are in memory, already encoded
    warnings.filterwarnings("ignore", message=".*Total length of `list` across ranks is zero.*")  # no selection rows
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(lambda r: "litlogger" not in r.getMessage())
