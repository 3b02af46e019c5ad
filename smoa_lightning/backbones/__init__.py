"""Base models and tokenizers from the hub, a local folder or the package."""
