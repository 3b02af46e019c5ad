"""What a study costs and what it can detect, before it runs."""
