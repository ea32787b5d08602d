"""Small backends to balance, break and switch: what `lb run --demo` starts."""
