"""How lb is built: as it is, or with its hot modules compiled (docs/architecture.md, "A compiled core")."""
