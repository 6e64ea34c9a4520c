"""The program: `cartsync`, and `python -m worker`.

As PID 1 of a container, the process ignores a signal that it has no handler for, and the libraries take half a second
to load. So a worker installs its signal handlers before it imports anything else.
"""

import os
import signal
import sys
from types import FrameType
from typing import NoReturn


def _end(_number: int, _frame: FrameType | None) -> NoReturn:
    """Nothing is open yet, so there is nothing to drain."""
    os._exit(0)


def main() -> NoReturn:
    """Runs a command and ends the process with its exit code."""
    command = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    if command == "run":
        signal.signal(signal.SIGTERM, _end)
        signal.signal(signal.SIGINT, _end)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # everything is about to be read anyway
    from worker.cli import main as run_command  # noqa: PLC0415 - not before the signals

    run_command()


if __name__ == "__main__":
    main()
