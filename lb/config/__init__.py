"""The configuration file: its model, its loader with every error's place, the difference between two."""
