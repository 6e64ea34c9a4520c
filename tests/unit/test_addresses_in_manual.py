"""The three lines of `CALLBACKS.md` that make an address, run in each language that this machine has."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from worker.core.tokens import Tokens, read_path

PAGE = (Path(__file__).parents[2] / "deploy" / "CALLBACKS.md").read_text(encoding="utf-8")
(SECTION,) = re.findall(r"^## Addresses\n(.*?)^## ", PAGE, re.MULTILINE | re.DOTALL)
BLOCKS = dict(re.findall(r"^```(\w+)\n(.*?)^```$", SECTION, re.MULTILINE | re.DOTALL))
ROWS = [
    [cell.strip().strip("`") for cell in line[1:-1].split("|")]
    for line in SECTION.splitlines()
    if line.startswith("| `0123")
]
NAMES = ("secret", "account", "purpose", "reference")
PROGRAMS = {
    "python": (
        sys.executable,
        "import base64, hmac, os\nfrom urllib.parse import quote\n{names}{block}print(path, end='')\n",
        "{name} = os.environ['{name}']\n",
        "-c",
    ),
    "php": ("php", "{names}{block}echo $path;\n", "${name} = getenv('{name}');\n", "-r"),
    "javascript": (
        "node",
        "{names}{block}process.stdout.write(path);\n",
        "const {name} = process.env['{name}'];\n",
        "-e",
    ),
    "shell": ("sh", '{block}printf %s "$path"\n', "", "-c"),
}
MORE = ("0123456789abcdef0123456789abcdef", "ca%ps", "checkout-status", "ü ?#&+/%2F")
"""An account and a reference with characters that have to be encoded."""


def test_all_languages_and_vectors_are_there() -> None:
    """The page has three lines for each language, and two examples."""
    assert set(BLOCKS) == set(PROGRAMS)
    assert all(len(block.splitlines()) == 3 for block in BLOCKS.values())
    assert len(ROWS) == 2


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[1])
def test_vectors(row: list[str]) -> None:
    """The paths of the table are the ones that the receiver makes and accepts."""
    secret, account, purpose, reference, path = row
    address = read_path(path)
    assert address is not None
    assert address.path() == path
    assert (address.account, address.purpose, address.reference) == (account, purpose, reference)
    assert Tokens([secret]).token(account, purpose, reference) == address.token


@pytest.mark.parametrize("values", [*(row[:4] for row in ROWS), list(MORE)], ids=lambda values: values[1])
@pytest.mark.parametrize("language", PROGRAMS)
def test_lines_make_addresses_that_are_accepted(language: str, values: list[str]) -> None:
    """The receiver accepts an address that the page's lines have made."""
    command, program, name_line, option = PROGRAMS[language]
    if shutil.which(command) is None or (language == "shell" and shutil.which("openssl") is None):
        pytest.skip(f"{language} is not on this machine")
    names = "".join(name_line.replace("{name}", name) for name in NAMES) if name_line else ""
    source = program.replace("{names}", names).replace("{block}", BLOCKS[language])
    environment = dict(zip(NAMES, values, strict=True)) | {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
    ran = subprocess.run(
        [shutil.which(command) or command, option, source],
        env=environment,
        capture_output=True,
        check=False,
        timeout=30,
    )
    assert ran.returncode == 0, ran.stderr.decode()
    address = read_path(ran.stdout.decode())
    assert address is not None
    secret, account, purpose, reference = values
    assert (address.account, address.purpose, address.reference) == (account, purpose, reference)
    assert address.token is not None
    assert Tokens([secret]).which(address.token, account, purpose, reference) == 0
