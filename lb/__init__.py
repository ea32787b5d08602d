"""lb: the health-aware front door for services."""

__version__ = "0.1.0"
#: How probes, hooks and webhooks name themselves, so that a target's log can tell them from clients.
USER_AGENT = f"lb-health/{__version__}"
