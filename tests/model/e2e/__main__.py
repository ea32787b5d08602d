"""`python -m tests.model.e2e --minutes 60`: random runs of real processes against the reference. See `README.md`."""

from __future__ import annotations

from tests.model.e2e.command import main

if __name__ == "__main__":
    main()
