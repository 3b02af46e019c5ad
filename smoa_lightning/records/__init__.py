"""The record of a run, the columns of TensorBoard's HPARAMS tab, and tables for the terminal."""
