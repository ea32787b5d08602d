"""The admin API over HTTP: endpoints, access control, how answers and refusals are written."""
