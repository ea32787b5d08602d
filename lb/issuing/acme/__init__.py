"""The client's side of ACME (RFC 8555): what is pure is apart from what talks."""
