"""One training run: module, schedule, callbacks, checkpoints and adapter folders."""
