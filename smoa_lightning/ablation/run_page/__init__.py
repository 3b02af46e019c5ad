"""One run as one page: scores, curves, the update, sample predictions, costs, record."""
