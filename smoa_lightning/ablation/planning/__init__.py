"""The plan of a study: its cost and the differences that it can detect."""
