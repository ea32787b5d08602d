"""What the supervisor asks of the operating system and its init."""
