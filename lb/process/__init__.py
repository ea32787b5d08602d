"""The parts that every process of lb has, whichever program it runs: the channel, sockets on their way, guarded
loops."""
