"""The example producers of `deploy/examples`: what they write is taken, and told to the provider."""

import asyncio
import shutil
import subprocess
import sys

import pytest

from tests.integration.conftest import OpenStage
from tests.integration.harness import PROJECT
from tests.shops.by_hand import ACCOUNT

EXAMPLES = PROJECT / "deploy/examples"


@pytest.mark.parametrize("language", ["python", "shell"])
async def test_example_producer_is_understood(open_stage: OpenStage, language: str) -> None:
    """One of two shirts was shipped, and that is what the provider gets."""
    if language == "shell" and shutil.which("kcat") is None:
        pytest.skip("the example needs kcat (Debian: kcat)")
    stage = await open_stage(partitions=3)
    await stage.started()
    bootstrap, topic, subject = stage.settings.bootstrap_servers, stage.settings.event_topic, f"{ACCOUNT}/A 1"
    options = ["--bootstrap", bootstrap, "--order", subject, "--topic", topic]
    command = {
        "python": [sys.executable, str(EXAMPLES / "produce.py"), *options],
        "shell": [str(EXAMPLES / "produce.sh"), bootstrap, subject, topic],
    }[language]
    ran = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=30, check=False)
    assert ran.returncode == 0, ran.stderr
    await stage.agreed({subject: (1250, 1250)})
    assert await stage.dead_letters(0, within_s=1) == []
