"""HTTP/2 (RFC 9113) without I/O: frames, header compression, streams, flow control, limits, and what is refused."""
