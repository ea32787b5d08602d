"""Sources that name targets: one file for each provider, all behind `source.Source`."""
