"""Code that every other folder may use: errors, atomic files, the process cache, fast imports."""
