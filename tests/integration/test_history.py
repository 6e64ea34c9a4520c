"""`cartsync order history` over what a real worker has written."""

import json

from tests.integration.conftest import OpenStage
from tests.integration.harness import Stage
from tests.integration.topics import Desk
from tests.shops.by_hand import ACCOUNT, OTHER_ACCOUNT, line


async def history_of(stage: Stage, ref: str) -> list[dict[str, object]]:
    """The entries, as the command prints them."""
    ran = await stage.command("order", "history", ref, "--json")
    assert ran.code == 0, ran
    return [json.loads(text) for text in ran.out.splitlines()]


async def test_story_of_an_order(open_stage: OpenStage) -> None:
    """Events and attempts in their order, also across workers; nothing of the shopper; another order is unknown."""
    stage = await open_stage(partitions=2)
    worker = await stage.started()
    order = stage.order(f"{ACCOUNT}/A1")
    await order.tell(
        "confirmed",
        currency="EUR",
        lines=[line("mug", 1000, 2, name="Anna's mug")],
        customer={"given_names": "Anna", "surnames": "Berg", "email": "anna@example.org"},
    )
    await order.ship("s1", mug=1)
    await stage.agreed({order.subject: (1000, 1000)})
    worker.terminate()
    assert await worker.ended(30) == 0
    worker = await stage.started()
    await order.ship("s2", mug=1)
    await stage.agreed({order.subject: (2000, 0)})
    worker.terminate()
    assert await worker.ended(30) == 0

    entries = await history_of(stage, "A1")
    assert [each["n"] for each in entries] == list(range(1, len(entries) + 1))
    events = [each for each in entries if each["kind"] == "event"]
    assert [each["what"] for each in events] == ["order.confirmed", "order.items_shipped", "order.items_shipped"]
    assert events[0].items() >= {"amount_minor": 2000, "currency": "EUR"}.items()
    last = entries[-1]
    assert last.items() >= {"kind": "attempt", "what": "applied", "http_status": 204, "status": "settled"}.items()
    assert last.items() >= {"shipped_minor": 2000, "unshipped_minor": 0, "currency": "EUR"}.items()
    assert not [word for word in ("Anna", "Berg", "anna@", "mug") if word in json.dumps(entries)]
    ran = await stage.command("order", "history", order.subject)
    assert "attempt: the provider took it; HTTP 204" in ran.out
    ran = await stage.command("order", "history", "A2")
    assert ran.code == 2
    assert "has no entry of an order A2" in ran.err


async def test_parked_and_released(open_stage: OpenStage) -> None:
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
