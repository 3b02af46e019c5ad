"""Filters for messages of libraries that do not help a user."""

from __future__ import annotations

import logging
import warnings

from smoa_lightning.common.console import is_verbose, set_library_levels

# Starts of Lightning's notes that only --verbose shows.
DETAILS = (
    "Loading `train_dataloader` to estimate",
    "GPU available:",
    "TPU available:",
    "HPU available:",
    "Seed set to",
    "Restoring states from the checkpoint path",
    "Loaded model weights from the checkpoint",
    "`Trainer.fit` stopped: `max_",
    "Detected KeyboardInterrupt, attempting graceful shutdown",  # this program says how to continue
)


def quiet_libraries() -> None:
    """Hide messages of libraries that do not help a user, and show as much of the others as the command does."""
    set_library_levels()
    if not is_verbose():  # it is about points of TensorBoard
        warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)  # lightning 2.6, torch 2.13
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)  # peft 0.21
    warnings.filterwarnings("ignore", message=".*have invalid shape.*")  # peft, a layer that AdaLoRA cut to rank 0
    warnings.filterwarnings("ignore", message="Sparse invariant checks.*")  # torch 2.13, in peft's FRoD
    # BOFT without a CUDA compiler: adapters.unsupported has refused more than one factor
    warnings.filterwarnings("ignore", message=".*(load the CUDA extension|boft_n_butterfly_factor to 1).*")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")  # rows are in memory, already encoded
    warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")  # batch norm
    warnings.filterwarnings("ignore", message=".*Total length of `list` across ranks is zero.*")  # no selection rows
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.seed"):
        logging.getLogger(name).addFilter(_helps)


def _helps(record: logging.LogRecord) -> bool:
    """Whether a note of Lightning says something that a user of this program needs; ``--verbose`` shows more."""
    text = record.getMessage()
    return "litlogger" not in text and (is_verbose() or not text.lstrip().startswith(DETAILS))
