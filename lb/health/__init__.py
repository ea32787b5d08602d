"""Asks every target whether it is ready, and knows what the answers amount to."""
