"""Tasks, their rows from hub, local files or the package, and the batches made of them."""
