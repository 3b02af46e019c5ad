"""Execution of a study: claims of runs, workers, and the status of all runs."""
