"""Side by side with nginx, HAProxy, Envoy and Caddy: paired ratios of one interleaved run, never absolute times."""
