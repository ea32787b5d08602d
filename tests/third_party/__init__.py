"""Runners for other people's test suites. They are not part of `make test`: what they need is installed by hand."""
