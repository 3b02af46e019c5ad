"""Carrying out a study: what has been claimed, by which worker, and what became of it."""
