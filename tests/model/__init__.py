"""The model: a reference of what `lb` promises, and random sequences that hold the running code to it."""
