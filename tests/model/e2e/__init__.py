"""The model end to end: real processes, real time, the same reference. See `tests/model/README.md`."""
