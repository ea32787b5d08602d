"""The two sides of an exchange in HTTP/1: `client` with `answer`, and `target`."""
