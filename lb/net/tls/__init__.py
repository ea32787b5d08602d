"""TLS of listeners, requests and probes: what Python's `ssl` is given, built at one place and off the event loop."""
