"""Finished runs side by side: what differs, paired tests, and the rows that only one of them gets right."""
