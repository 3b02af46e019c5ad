"""The order of batches, collation and packing."""
