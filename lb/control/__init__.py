"""The admin port: API, dashboard, metrics, events."""
