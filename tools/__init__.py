"""Tools for developers: they make files that the package ships, and are not part of the package."""
