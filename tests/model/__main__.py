"""`python -m tests.model --steps 200000 --seeds 500`: random runs against the reference. See `README.md`."""

from __future__ import annotations

from tests.model import launch

launch.prepare()

from tests.model.command import main  # noqa: E402 - the clock comes first

if __name__ == "__main__":
    main()
