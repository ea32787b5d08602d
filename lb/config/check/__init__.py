"""Faults and unwise settings of a file although each field is valid, and the words for them."""
