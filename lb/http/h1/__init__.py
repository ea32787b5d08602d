"""The HTTP/1 wire format: `parse` checks and refuses messages, `serialize` writes heads, `chunked` follows bodies."""
