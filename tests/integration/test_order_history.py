"""`cartsync order history` over what a real worker has told."""

from tests.integration.conftest import OpenStage
from tests.integration.topics import Desk
from tests.shops.by_hand import ACCOUNT, OTHER_ACCOUNT, line


async def test_history(open_stage: OpenStage) -> None:
    """An order that was parked and released, with an event that was refused: each in its turn."""
    stage = await open_stage(partitions=2)
    worker = await stage.started()
    order = stage.order(f"{ACCOUNT}/A1")
    stage.script([order.subject], "422", times=1)
    await order.confirm(line("mug", 1000))
    await order.ship("s1", mug=1)
    await worker.shown(order.subject, "parked")
    await order.ship("s2", mug=-1)
    await stage.dead_letters(1)
    released = await stage.command("order", "release", order.subject, "--url", worker.url)
    assert released.code == 0, released
    await stage.agreed({order.subject: (1000, 0)})
    other = stage.order(f"{OTHER_ACCOUNT}/A2")
    await other.confirm(line("mug", 1000))
    desk = Desk(stage.settings, stage.folder)
    for ref in (order.subject, "A1"):
        found = await desk.json("order", "history", ref, schema="order_history")
        assert {entry["subject"] for entry in found} == {order.subject}
        told = [entry["text"] for entry in found if entry["kind"] == "result"]
        assert ("parked" in told, told[-1]) == (True, "settled")
        (refused,) = [entry for entry in found if entry["kind"] == "refused"]
        assert refused["text"].startswith("invalid_data: $.data.lines[0].quantity: expected")
        assert [entry["at_ms"] for entry in found] == sorted(entry["at_ms"] for entry in found)
    ran = await desk.run("order", "history", order.subject)
    assert "refused (" in ran.out
    assert "settled" in ran.out.splitlines()[-1]
    (nothing,) = await desk.json("order", "history", "acme/none", schema="error", code=2)
    assert "nothing is known of an order acme/none" in nothing["problems"][0]
    again = stage.order(f"{OTHER_ACCOUNT}/A1")
    await again.ship("s9", mug=-1)
    await stage.dead_letters(2)
    (several,) = await desk.json("order", "history", "A1", schema="error", code=2)
    assert "A1 is ambiguous: use" in several["problems"][0]
