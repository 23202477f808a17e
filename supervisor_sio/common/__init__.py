"""Code that all processes share. It imports nothing from the rest of the package."""
