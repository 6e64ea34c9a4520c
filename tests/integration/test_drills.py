"""One drill, so that what all of them are made of stays right; the others are for `make drills`."""

from pathlib import Path

import pytest

from tests.drills.__main__ import play
from tests.drills.drill import DRILLS
from tests.programs import program
from worker.tools.local_kafka import LocalKafka

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


async def test_parked_order(kafka: LocalKafka, tmp_path: Path) -> None:
    """The alert fires on the metrics of a real worker, its section helps, and it is over."""
    seen = await play(DRILLS["CartsyncOrdersParked"], kafka, tmp_path, program("prometheus"))
    assert seen.fired_s > 0
    assert seen.resolved_s > 0
    assert "`cartsync order release`" in seen.steps
