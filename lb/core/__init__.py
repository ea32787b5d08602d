"""Decisions and the values they are made of. No I/O, no asyncio: `now` and the dice are arguments."""
