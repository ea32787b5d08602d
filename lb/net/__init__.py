"""The network below traffic and probes alike: host names, TLS contexts."""
