"""Certificates that lb has issued for itself: by an ACME authority, or by its own internal one. The supervisor's."""
