"""`cartsync demo --kafka`: the promise of the README, on a real Kafka of its own."""

import os
import subprocess
import sys
from pathlib import Path

from tests.integration.harness import PROJECT


def test_the_demo_ends_in_agreement(kafka_jars: Path, tmp_path: Path) -> None:
    """Exit code 0 once all orders agree; `order show` then looks at what it left."""
    (tmp_path / ".kafka").mkdir()
    (tmp_path / ".kafka" / "libs").symlink_to(kafka_jars.absolute())
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CARTSYNC_")}

    def ran(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "worker", *words],
            capture_output=True,
            text=True,
            timeout=90,
            cwd=tmp_path,
            env=environment | {"PYTHONPATH": str(PROJECT)},
            check=False,
        )

    demo = ran("demo", "--kafka", "--orders", "40", "--seconds", "2")
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert "41 agree, 0 differ" in demo.stdout
    shown = ran("order", "show", "acme/grown", "--url", "http://127.0.0.1:1")
    assert (shown.returncode, "settled" in shown.stdout) == (0, True), shown.stdout + shown.stderr
