"""The record of a run, what TensorBoard's HPARAMS tab shows of it, and tables for the terminal."""
