"""Base models and tokenizers from the hub, local folders or the package."""
