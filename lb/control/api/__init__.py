"""The admin API over HTTP: endpoints, who may ask, how answers and refusals are written."""
