"""Lets a person edit a text in the editor of their choice."""

import shlex
import subprocess
import tempfile
from pathlib import Path

from worker.config import editor_of
from worker.errors import UsageError


def edited(text: str, command: str | None = None) -> str:
    """What the editor leaves of it. `command`: instead of `$VISUAL`, `$EDITOR` or vi. Raises `UsageError` when there is
    no such editor, it fails, or nothing was changed.
    """
    words = shlex.split(command or editor_of())
    with tempfile.TemporaryDirectory(prefix="cartsync-") as folder:
        file = Path(folder) / "event.json"
        file.write_text(text, encoding="utf-8")
        file.chmod(0o600)
        try:
            subprocess.run([*words, str(file)], check=True)
            after = file.read_text(encoding="utf-8")
        except (OSError, ValueError, subprocess.CalledProcessError) as error:
            raise UsageError(f"--edit: {words[0]} has failed ({error}); $EDITOR names another one") from None
    if after == text:
        raise UsageError("nothing was changed in the editor, so nothing is written")
    return after
