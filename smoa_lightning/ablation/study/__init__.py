"""Study files, and the cells and runs that they describe."""
