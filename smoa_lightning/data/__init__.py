"""Tasks, their rows from hub, local files or the package, and batches of these rows."""
