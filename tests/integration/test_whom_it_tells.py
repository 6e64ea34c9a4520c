"""Who may tell a provider, and which one: a replay beside a worker, an account with another address, an order in two
partitions.
"""

import json
from pathlib import Path

import msgspec

from schemas.views import OrderView
from tests.integration.conftest import OpenStage
from tests.shops.by_hand import ACCOUNT, line
from worker.core.placing import murmur2
from worker.errors import ConfigError, TwoOwnersError


def _written(folder: Path, *events: bytes) -> Path:
    file = folder / "events.jsonl"
    file.write_bytes(b"\n".join(events))
    return file


async def test_replay_is_refused_beside_a_worker(open_stage: OpenStage) -> None:
    """It prints by default; it sends nothing while the group has a member; then it says what it overwrites, and sends it
    under keys of its own.
    """
    stage = await open_stage()
    worker = await stage.started()
    order = stage.order(f"{ACCOUNT}/1")
    confirmed, shipped = (
        order.event("confirmed", {"currency": "EUR", "lines": [line("mug", 1000)]}),
        order.event("items_shipped", {"shipment_id": "s1", "lines": [{"line_id": "mug", "quantity": 1}]}),
    )
    file = _written(stage.folder, confirmed, shipped)

    printed = await stage.command("replay", str(file), "--json")
    assert (printed.code, json.loads(printed.out.splitlines()[0])["method"]) == (0, "PUT")
    refused = await stage.command("replay", str(file), "--send")
    assert (refused.code, refused.out) == (TwoOwnersError.exit_code, "")
    assert "running workers (cartsync at 127.0.0.1)" in refused.err
    assert stage.attempts(order.subject) == []

    worker.terminate()
    assert await worker.ended() == 0
    sent = await stage.command("replay", str(file), "--send")
    assert sent.code == 0, sent.err
    assert f"1 orders will be overwritten at their providers with the result of {file} alone" in sent.err
    assert f"PUT {stage.base_url}/merchants/" in sent.err
    [attempt] = stage.attempts(order.subject)
    assert (attempt.idempotency_key or "").startswith("replay-")
    assert stage.holds(order.subject) == (1000, 0)


async def test_another_address_needs_a_word(open_stage: OpenStage) -> None:
    """A worker with another address ends with 64 and says why; told to send, it tells the orders anew."""
    stage = await open_stage()
    first = await stage.started()
    order = stage.order(f"{ACCOUNT}/1")
    await order.confirm(line("mug", 1000))
    await order.ship("s1", mug=1)
    await stage.agreed({order.subject: (1000, 0)})
    [configured] = [each for each in first.log("account_configured") if each["account"] == ACCOUNT]
    assert configured["host"] == stage.base_url.removeprefix("http://")
    first.terminate()
    assert await first.ended() == 0

    variable = f"CARTSYNC_ACCOUNTS__{ACCOUNT.upper()}__"
    elsewhere = {f"{variable}BASE_URL": stage.base_url.replace("127.0.0.1", "localhost")}
    second = stage.start(**elsewhere)
    assert await second.ended(30) == ConfigError.exit_code, second.tail()
    [refused] = second.log("partition_unusable")
    assert f"--accept-target {ACCOUNT}=send" in refused["error"]
    assert len(stage.attempts(order.subject)) == 1

    third = await stage.started(**elsewhere, **{f"{variable}ACCEPT_TARGET": "send"})
    await third.shown(order.subject, "settled")
    assert len(stage.attempts(order.subject)) == 2
    assert [each["choice"] for each in third.log("account_target_changed")] == ["send"]


async def test_order_in_two_partitions(open_stage: OpenStage) -> None:
    """Two producers with different keys: the worker that serves both partitions says so, and so does the state topic."""
    stage = await open_stage(partitions=2)
    worker = await stage.started()
    order = stage.order(f"{ACCOUNT}/1")
    own = murmur2(order.subject.encode()) % 2
    other = next(key for key in (b"ret-%d" % n for n in range(50)) if murmur2(key) % 2 != own)
    await order.confirm(line("mug", 1000))
    await order.ship("s1", mug=1)
    await stage.agreed({order.subject: (1000, 0)})
    returned = {"return_id": "r1", "lines": [{"line_id": "mug", "quantity": 1}]}
    await stage.write(other, order.event("items_returned", returned))
    noted: list[str] = []
    for _ in range(100):
        asked = await stage.command(
            "order", "show", order.subject, "--json", CARTSYNC_HTTP__PORT=worker.url.split(":")[-1]
        )
        noted = msgspec.json.decode(asked.out, type=OrderView).notes
        if noted:
            break
    assert "partitions 0 and 1 hold this order" in noted[0]
    worker.terminate()
    assert await worker.ended() == 0
    shown = await stage.command("order", "show", order.subject, CARTSYNC_HTTP__PORT="1")
    assert "partitions 0 and 1 hold this order" in shown.out, shown.err
