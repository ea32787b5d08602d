"""The HTTP/1 wire format: bytes in, values out; the one place that refuses a message."""
