"""What compiling the core would bring: rows of the bench from a copy compiled by mypyc, and from this tree, by turns.

    python -m tests.bench.compiled --rounds 3

mypyc comes with mypy, and needs a C compiler. Compiled is what computes and has no `Struct` of its own that msgspec
decodes into: mypyc builds classes without the annotations by which msgspec knows the types of members.
What came of it, and why no compiled wheel is built, is in `deploy/DECISIONS.md`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from rich.console import Console

from tests.bench.processes import ROOT

ROWS = ("reduce", "update")
MODULES = (
    *[f"worker/core/{name}.py" for name in ("carts", "order", "outbox", "record", "reducer", "retry", "shares")],
    *[f"worker/orders/{name}.py" for name in ("batch", "workload")],
    *[f"worker/providers/sequra/{name}.py" for name in ("cents", "rendering", "report", "steps")],
    "worker/publisher/publisher.py",
)
_SETUP = """
import sys
from mypyc.build import mypycify
from setuptools import setup
options = ["--config-file=", "--ignore-missing-imports", "--follow-imports=silent"]
setup(name="compiled", packages=[], ext_modules=mypycify([*options, *sys.argv[3:]], opt_level="3"), script_args=sys.argv[1:3])
"""


def compiled_copy(folder: Path) -> None:
    """Puts a copy of git's index there, and compiles `MODULES` in it. Raises `CalledProcessError`."""
    subprocess.run(["git", "checkout-index", "--all", f"--prefix={folder}/"], cwd=ROOT, check=True)
    command = [sys.executable, "-c", _SETUP, "build_ext", "--inplace", *MODULES]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    missing = [name for name in MODULES if not list(folder.glob(f"{name.removesuffix('.py')}.*.so"))]
    if missing:
        raise SystemExit(f"not compiled: {', '.join(missing)}")


def measured(tree: Path, row: str) -> float:
    """The row's ratio to its limit by CPU."""
    with tempfile.NamedTemporaryFile() as file:
        environment = os.environ | {"BENCH_JSON": file.name, "PYTHONPATH": str(tree)}
        command = [sys.executable, "-m", "tests.bench", "--only", row]
        subprocess.run(command, cwd=tree, check=True, env=environment, stdout=subprocess.DEVNULL)
        (figure,) = json.loads(Path(file.name).read_bytes())
    return float(figure["by_cpu"])


def main() -> None:
    """Prints each pair, and the medians."""
    parser = argparse.ArgumentParser(description="Rows of the bench, compiled and not")
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    console = Console()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        console.print(f"compiling {len(MODULES)} modules")
        compiled_copy(folder)
        for row in ROWS:
            pairs: list[tuple[float, float]] = []
            for _ in range(rounds):
                pairs += [(measured(folder, row), measured(ROOT, row))]
                console.print(f"{row}: compiled {pairs[-1][0]:.2f}, pure {pairs[-1][1]:.2f} of the limit by CPU")
            gain = median(compiled / pure for compiled, pure in pairs)
            console.print(f"{row}: compiled {gain:.2f} times as fast as pure, the median of {rounds}")


if __name__ == "__main__":
    main()
