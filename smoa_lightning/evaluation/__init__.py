"""Scores and metrics: log-likelihoods of choices, generated replies, and pure functions of texts and numbers."""
