"""The `lb` command: one file per command family."""
