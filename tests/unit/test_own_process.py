"""Starting another process of ours."""

import subprocess
import sys
from pathlib import Path

import pytest

import worker
from worker.own_process import own_command

TELL = "import colorsys, sys, worker\nprint(worker.__file__, __name__, *sys.argv[1:])"


@pytest.mark.parametrize("installed", [True, False])
def test_code_from_where_we_have_it(tmp_path: Path, *, installed: bool) -> None:
    """Installed or not (-S: nothing is), ours is run, and nothing that lies in the working directory."""
    for name in ("worker", "colorsys"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('not ours')")
    found = tmp_path / "found"
    found.mkdir()
    (found / "tell.py").write_text(TELL)
    python, *words = own_command("tell", "--to", "me")
    assert python == sys.executable
    command = [python, *([] if installed else ["-S"]), *words]
    said = subprocess.check_output(command, cwd=tmp_path, env={"PYTHONPATH": str(found)}, text=True)
    assert said.split() == [worker.__file__, "__main__", "--to", "me"]
