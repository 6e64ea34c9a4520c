"""`cartsync order history` over what a real worker has written."""

from tests.integration.conftest import OpenStage
from tests.integration.topics import Desk
from tests.shops.by_hand import ACCOUNT, OTHER_ACCOUNT, line


async def test_history(open_stage: OpenStage) -> None:
    """An order that was parked and released: each entry in its turn."""
    stage = await open_stage(partitions=2)
    worker = await stage.started()
    order = stage.order(f"{ACCOUNT}/A1")
    stage.script([order.subject], "422", times=1)
    await order.confirm(line("mug", 1000))
    await order.ship("s1", mug=1)
    await worker.shown(order.subject, "parked")
    released = await stage.command("order", "release", order.subject, "--url", worker.url)
    assert released.code == 0, released
    await stage.agreed({order.subject: (1000, 0)})
    other = stage.order(f"{OTHER_ACCOUNT}/A2")
    await other.confirm(line("mug", 1000))
    desk = Desk(stage.settings, stage.folder)
    for ref in (order.subject, "A1"):
        found = await desk.json("order", "history", ref, schema="order_history")
        kinds = [entry["kind"] for entry in found]
        assert kinds[0] == "event"
        assert {"event", "attempt", "operator"} <= set(kinds)
        told = [entry.get("status") for entry in found]
        assert ("parked" in told, told[-1]) == (True, "settled")
        assert [entry["n"] for entry in found] == list(range(1, len(found) + 1))
    ran = await desk.run("order", "history", order.subject)
    assert "an operator: " in ran.out
    assert "settled" in ran.out.splitlines()[-1]
    (nothing,) = await desk.json("order", "history", "acme/none", schema="error", code=2)
    assert "has no entry of an order acme/none" in nothing["problems"][0]
    again = stage.order(f"{OTHER_ACCOUNT}/A1")
    await again.confirm(line("mug", 1000))
    await worker.shown(again.subject, "settled")
    (several,) = await desk.json("order", "history", "A1", schema="error", code=2)
    assert "A1 is ambiguous: use" in several["problems"][0]
