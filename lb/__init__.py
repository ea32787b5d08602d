"""lb: the health-aware front door for services."""

__version__ = "0.1.0"
