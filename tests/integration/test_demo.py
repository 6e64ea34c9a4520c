"""`cartsync demo`: the promise of the README, with the embedded log and on a real Kafka of its own."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.harness import PROJECT

Ran = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def ran(tmp_path: Path) -> Ran:
    """Run the command line in an empty folder."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CARTSYNC_")}

    def run(*words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "worker", *words],
            capture_output=True,
            text=True,
            timeout=90,
            cwd=tmp_path,
            env=environment | {"PYTHONPATH": str(PROJECT)},
            check=False,
        )

    return run


def row(text: str, head: str) -> list[int]:
    """Return the numbers of a row of the table at the end."""
    found = re.search(rf"│ {re.escape(head)} +│(.*)│", text)
    assert found is not None, text
    return [int(cell) for cell in found[1].split("│")]


def check(ran: Ran, *options: str) -> None:
    """Exit code 0 once all orders agree at all three providers; `order show` then looks at what it left."""
    demo = ran("demo", "--orders", "60", "--seconds", "2", *options)
    assert demo.returncode == 0, demo.stdout + demo.stderr
    said = demo.stdout
    assert row(said, "orders") == [21, 20, 20]
    agreeing, unsupported = row(said, "agree"), row(said, "cannot be sent (parked)")
    assert (agreeing[:2], agreeing[2] + unsupported[2], unsupported[2] > 0) == ([21, 20], 20, True), said
    assert row(said, "differ") == [0, 0, 0]
    assert all(count > 0 for what in ("faults met", "pushes", "doubled") for count in row(said, what)), said
    shown = ran("order", "show", "acme/grown", "--url", "http://127.0.0.1:1")
    assert (shown.returncode, "settled" in shown.stdout) == (0, True), shown.stdout + shown.stderr


def test_the_demo_ends_in_agreement(ran: Ran) -> None:
    """Without a broker."""
    check(ran)


def test_the_demo_ends_in_agreement_on_kafka(ran: Ran, kafka_jars: Path, tmp_path: Path) -> None:
    """With one."""
    (tmp_path / ".kafka").mkdir()
    (tmp_path / ".kafka" / "libs").symlink_to(kafka_jars.absolute())
    check(ran, "--kafka")
