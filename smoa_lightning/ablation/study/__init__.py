"""A study file, and the cells and runs that it stands for."""
