"""The memory of a training step and the disk space of a run, counted from shapes, without weights and data."""
