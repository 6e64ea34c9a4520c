"""What the product imports is named in pyproject.toml: nothing works only because something else brings it along."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OWN = {"worker", "schemas"}
BROUGHT = {
    "opentelemetry": "opentelemetry-sdk",
    "pydantic": "pydantic-settings",
    "markupsafe": "jinja2",
    "cramjam": "aiokafka",
}
"""By package: the dependency that hands its objects to us, which always brings it."""


def imported(text: str) -> Iterator[str]:
    """The packages that a module imports, from anywhere but here and the standard library."""
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Import():
                names = [alias.name for alias in node.names]
            case ast.ImportFrom(module=str(module), level=0):
                names = [module]
            case _:
                continue
        tops = {name.partition(".")[0] for name in names}
        yield from sorted(tops - OWN - sys.stdlib_module_names)


def declared() -> set[str]:
    """The dependencies, those of extras included, as modules are named."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {name: rows for name, rows in project["optional-dependencies"].items() if name != "dev"}
    rows = [*project["dependencies"], *(row for found in extras.values() for row in found)]
    return {name_of(row) for row in rows}


def name_of(row: str) -> str:
    """The module of a dependency."""
    found = re.match(r"[A-Za-z0-9_.-]+", row)
    assert found is not None
    return found[0].replace("-", "_").removesuffix("_python")


def test_packages_are_found() -> None:
    """Whichever way a module imports them, and not what belongs to it or to Python."""
    text = "import os, msgspec.json\nfrom jinja2 import Environment\nfrom worker.cli import app\nfrom . import x"
    assert list(imported(text)) == ["msgspec", "jinja2"]
    assert name_of("aws-msk-iam-sasl-signer-python>=1.0.2,<2") == "aws_msk_iam_sasl_signer"


def test_imports_are_declared() -> None:
    """Each, or the dependency that is known to bring it."""
    known = declared()
    assert {name.replace("-", "_") for name in BROUGHT.values()} <= known
    files = [*ROOT.glob("worker/**/*.py"), *ROOT.glob("schemas/**/*.py")]
    found = {
        f"{file.relative_to(ROOT)}: {name}"
        for file in files
        for name in imported(file.read_text(encoding="utf-8"))
        if name not in known | BROUGHT.keys()
    }
    assert not found, "\n".join(sorted(found))
