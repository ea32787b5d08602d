"""Processes: the supervisor, its workers, the channel between them, sockets, signals, state on disk."""
