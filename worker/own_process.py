"""Starting another process of ours: with the same Python, and with our code from where this process has it."""

import sys
from pathlib import Path

_CODE = Path(__file__).parent.parent
# A checkout is not among the folders that are searched for modules; what is installed is, after the standard library.
_RUN = """
import runpy, sys
_, code, module = sys.argv[:3]
if code not in sys.path:
    sys.path.insert(0, code)
del sys.argv[1:3]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


def own_command(module: str, *words: str) -> list[str]:
    """Runs this module of ours."""
    # -P: what lies in the working directory is not ours.
    return [sys.executable, "-P", "-c", _RUN, str(_CODE), module, *words]
