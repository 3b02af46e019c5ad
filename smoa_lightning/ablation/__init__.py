"""Ablation studies: grids and searches of runs, their statistics and their report."""
