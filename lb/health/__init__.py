"""Active checks: the monitor schedules, `probes/` ask."""
