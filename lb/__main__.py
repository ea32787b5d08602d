"""`python -m lb` is the same as `lb`."""

import sys

from lb import early_signals

if __name__ == "__main__":
    early_signals.hold_for_run(sys.argv)

from lb.cli.main import main

if __name__ == "__main__":
    main()
