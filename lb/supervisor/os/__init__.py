"""The supervisor's side of the operating system and its init."""
