"""HTTP/2 on clients' connections: `client` has the connection, `stream` the client stream of each exchange."""
