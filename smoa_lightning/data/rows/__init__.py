"""Reading rows: files, hub snapshots, embedded rows, splits and mixtures."""
