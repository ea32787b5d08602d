"""One setting of a text changed in place; two texts compared."""
