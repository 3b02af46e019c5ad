"""What every other folder may use: errors, files that are whole or absent, the process cache, fast imports."""
