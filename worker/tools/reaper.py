"""Kills the child processes of a program that was killed itself.

A small process holds the read end of a pipe. While the owner lives it writes there which process ids are at
stake; the pipe ends when the owner does, however that came about. Linux has `PR_SET_PDEATHSIG` for this, but
that goes off at the end of the *thread* that started the child (prctl(2)): a broker restarted through
`asyncio.to_thread` would die with the event loop. It would also leave the folder behind.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

_REMOVE_WITHIN_S = 10.0


class Reaper:
    """The owner's side. `folder` is removed too, if the owner cannot do so."""

    def __init__(self, folder: Path) -> None:
        # `-I -S` start in 20 ms; a process group of its own, so that Ctrl-C does not end it before the owner.
        command = [sys.executable, "-I", "-S", __file__, str(folder)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, process_group=0)

    @property
    def pid(self) -> int:
        """The process id of the reaper."""
        return self._process.pid

    def watch(self, pids: Iterable[int]) -> None:
        """From now on, watch exactly these processes."""
        assert self._process.stdin is not None
        # This is the second line of defense: if somebody killed it, the owner itself is still there.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(" ".join(map(str, pids)) + "\n")
            self._process.stdin.flush()

    def close(self) -> None:
        """Stops the reaper; it kills the processes that it still watches and removes the folder. May be repeated."""
        self._process.communicate(timeout=2 * _REMOVE_WITHIN_S)


def _reap(folder: Path) -> None:
    pids: list[int] = []
    for line in sys.stdin:
        pids = [int(word) for word in line.split()]
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    give_up_at = time.monotonic() + _REMOVE_WITHIN_S
    while folder.exists() and time.monotonic() < give_up_at:
        # A killed process may still finish a write and recreate a file: so remove it once more.
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.02)


if __name__ == "__main__":
    _reap(Path(sys.argv[1]))
