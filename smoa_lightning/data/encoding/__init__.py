"""Prompt and response to token ids."""
