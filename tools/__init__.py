"""Tools of the developers: they make files that the package ships, and are no part of it."""
