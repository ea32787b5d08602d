"""HTTP: messages as values, and their wire formats. Bytes in, values out: no I/O and no clock."""
