"""`cartsync reconcile` against what a worker has told three providers, over a real Kafka and real HTTP.

Three shops as in the demo, without faults; then somebody disturbs an order at each provider, and each is named.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import Struct

from schemas.reconciliation import ComparedOrder, Reconciliation
from tests.integration.harness import PROJECT
from tests.integration.process import Ran, until
from tests.kafka_settings import settings_of
from worker.app import Worker
from worker.core.commands import COMMANDS
from worker.core.placing import Placing
from worker.kafka.events import KafkaEventLog
from worker.kafka.following import KafkaRecords
from worker.kafka.producer import KafkaEventProducer
from worker.kafka.settings import KafkaSettings
from worker.kafka.state import KafkaStateLog
from worker.kafka.topics import create_topics
from worker.kafka.writer import EventWriter
from worker.model.exchange import HttpRequest, HttpResponse
from worker.providers.atarapay.wire import State
from worker.providers.qliro import wire
from worker.providers.qliro.options import QliroAccount
from worker.publisher.sender import HttpSender
from worker.sandbox.qliro.orders import Item, Order
from worker.tools.demo.merchants import AtAtaraPay, AtQliro, AtSequra, Merchant, Plot
from worker.tools.demo.stage import PARTITIONS, Stage, Wire
from worker.tools.letters import desk_on
from worker.tools.local_kafka import LocalKafka
from worker.tools.sandbox_server import pusher

ORDERS = 24
LONG_AGO = timedelta(days=60)


class Market(Struct):
    """Three shops, their providers, and a worker that has told all there is to tell."""

    folder: Path
    settings: KafkaSettings
    sender: HttpSender
    sequra: AtSequra
    qliro: AtQliro
    escrow: AtAtaraPay
    worker: Worker
    wire: Wire

    @property
    def merchants(self) -> list[Merchant]:
        return [self.sequra, self.qliro, self.escrow]

    async def append(self, subject: str, kind: str, data: dict[str, Any]) -> None:
        """One event of a shop, now."""
        event = {
            "specversion": "1.0",
            "id": uuid.uuid4().hex,
            "source": "/shops/test",
            "type": kind,
            "time": datetime.now(UTC).isoformat(),
            "subject": subject,
            "data": data,
        }
        await self.wire.append(subject, msgspec.json.encode(event))

    def status_of(self, subject: str) -> str:
        """Of an order that the worker knows."""
        view = self.worker.show(subject)
        assert view is not None
        return view.status

    async def quiet(self) -> None:
        """Until nothing is left to be told."""
        await until(
            lambda: self.worker.is_idle() and all(each.is_over for each in self.merchants), 60, lambda: "not at rest"
        )

    async def back_office(self, command: str, order_id: int, **members: Any) -> None:
        """Somebody does something at Qliro, with the same interface."""
        account = self.qliro.account
        assert isinstance(account, QliroAccount)
        body = msgspec.json.encode(
            {"RequestId": str(uuid.uuid4()), "MerchantApiKey": account.api_key, "OrderId": order_id, "Currency": "SEK"}
            | members
        )
        headers = {"Authorization": wire.signature(body, account.api_secret), "Content-Type": "application/json"}
        request = HttpRequest("POST", f"{account.base_url}/v2/{command}", headers, body, account.name)
        answer = await self.sender.send(request, 5.0, lambda: True)
        assert isinstance(answer, HttpResponse), answer
        assert answer.status == 200, answer.body
        order = self.qliro.sandbox.orders[order_id]
        await until(lambda: not order.pending, 10, lambda: f"{order}")

    def command(self, *words: str) -> list[str]:
        """The words of a command."""
        return [sys.executable, "-m", "worker", *words]

    async def reconcile(self, *words: str, **environment: str) -> Ran:
        """Runs it to its end."""
        ran = await asyncio.to_thread(
            subprocess.run,
            self.command("reconcile", "--rate", "1000", *words),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=90,
            cwd=self.folder,
            env={"PYTHONPATH": str(PROJECT), "PATH": os.environ["PATH"], **environment},
            check=False,
        )
        return Ran(ran.returncode, ran.stdout, ran.stderr)


@pytest.fixture
async def market(kafka: LocalKafka, tmp_path: Path) -> AsyncIterator[Market]:
    """A day of the three shops is over, and nothing is owed."""
    settings = settings_of(
        kafka.bootstrap, session_timeout_s=6.0, heartbeat_s=1.0, rebalance_timeout_s=10.0, partitioner="murmur2"
    )
    placing = Placing("murmur2")
    async with AsyncExitStack() as stack:
        await create_topics(settings, PARTITIONS)
        writer = EventWriter(settings)
        await writer.start()
        stack.push_async_callback(writer.stop)

        async def append(key: str, value: bytes) -> None:
            await writer.write(key.encode(), value)

        log = Wire(
            KafkaEventLog(settings),
            KafkaStateLog(settings),
            append,
            lambda: KafkaEventProducer(settings, placing),
            placing,
            lambda: KafkaRecords(settings),
            lambda: partial(desk_on, settings, None),
        )
        sender = HttpSender(deadline_s=2.0, user_agent="test")
        stack.push_async_callback(sender.close)
        send = pusher(sender)
        plot = Plot(ORDERS, 1.0, 3, (datetime.now(UTC) - LONG_AGO).replace(microsecond=0))
        merchants = (AtSequra(plot, send), AtQliro(plot, send), AtAtaraPay(plot, send))
        stage = Stage(log, {each.name: each.caller() for each in merchants}, sender)
        callbacks = await stage.receive(stack)
        for each in merchants:
            await each.open(callbacks)
            stack.push_async_callback(each.sandbox.stop)
            each.sandbox.faults.stop()
        worker = await stage.work({each.name: each.account for each in merchants}, stack)
        opened = Market(tmp_path, settings, sender, *merchants, worker, log)
        await play(opened)
        _configure(opened)
        yield opened


async def play(market: Market) -> None:
    """All that happens, as fast as it can be written."""
    for merchant in market.merchants:
        for order in merchant.history.orders.values():
            merchant.place(order)
        for event in merchant.history.events:
            await market.wire.append(event.subject, event.value)
    give_up_at = time.monotonic() + 60
    while not (market.worker.is_idle() and all(each.is_over for each in market.merchants)):
        assert time.monotonic() < give_up_at, "not at rest"
        for merchant in market.merchants:
            for event in merchant.happen(1.0):
                await market.wire.append(event.subject, event.value)
        await asyncio.sleep(0.1)


def _configure(market: Market) -> None:
    settings, sequra, qliro = market.settings, market.sequra.account, market.qliro.account
    names = ["bootstrap_servers", "group_id", "transactional_id_prefix", "event_topic", "state_topic"]
    names += ["dead_letter_topic", "results_topic"]
    kafka = "".join(f"{name} = {json.dumps(getattr(settings, name))}\n" for name in names)
    (market.folder / "cartsync.toml").write_text(
        f'[kafka]\n{kafka}partitioner = "murmur2"\nconnect_timeout = "2s"\n'
        f'[accounts.acme]\nprovider = "sequra"\nbase_url = "{sequra.base_url}"\nmerchant_id = "acme"\n'
        'username = "demo"\npassword = "demo-secret"\n'
        f'[accounts.hats]\nprovider = "qliro"\nbase_url = "{qliro.base_url}"\napi_key = "HATS"\n'
        'api_secret = "demo-secret"\n'
        f'[accounts.escrow]\nprovider = "atarapay"\nbase_url = "{market.escrow.account.base_url}"\n'
        'public_key = "demo-public"\nprivate_key = "demo-private"\n'
    )


def read(ran: Ran) -> tuple[dict[str, ComparedOrder], Reconciliation]:
    """The lines of a run: orders by subject, and the summary."""
    *lines, last = ran.out.splitlines()
    found = [msgspec.json.decode(line, type=ComparedOrder) for line in lines]
    return {each.subject: each for each in found}, msgspec.json.decode(last, type=Reconciliation)


async def test_what_was_told_agrees(market: Market) -> None:
    """After a day of three shops nothing differs but what AtaraPay has no word for, which is parked."""
    market.sequra.sandbox.disburse("acme")
    ran = await market.reconcile("--json", "--all")
    found, summary = read(ran)
    parked = {subject for subject, each in found.items() if each.verdict == "parked"}
    assert all(subject.startswith("escrow/") for subject in parked)
    assert {subject for subject, each in found.items() if each.category == "differs"} <= parked, ran.out
    assert summary.is_complete
    assert summary.orders == len(found) >= 3 * ORDERS


async def test_each_disturbance_is_named(market: Market) -> None:
    """Somebody else's capture, refund and cancellation, a return that got lost and a disbursement that is a cent short
    are named, each with who is owed what; nothing else is.
    """
    orders = market.qliro.sandbox.orders
    early = next(one for one in orders.values() if one.left and not one.pending and not one.captures)
    which, held = next((which, items) for which, items in early.reserved.items() if items)
    line = next(item for item in held.values() if item.type == "Product" and item.quantity)
    await market.back_office("MarkItemsAsShipped", early.id, Shipments=_entry(which, line, 1))
    refunded = next(one for one in orders.values() if one.captured_minor > 1_000 and one is not early)
    newest = max(refunded.captures)
    discount = Item("goodwill", "Discount", -120, -96, 1, "Goodwill")
    await market.back_office("AddItemsToInvoice", refunded.id, Additions=_entry(newest, discount, 1, is_whole=True))
    lost = next(
        one for one in orders.values() if any(+c.returned for c in one.captures.values()) and one is not refunded
    )
    lost_minor = forget_return(lost)
    # Nor that it was ever asked for it: the same step has the same RequestId, and would be taken for a repeat.
    market.qliro.sandbox.requests.clear()
    escrow = next(
        one
        for one in market.escrow.sandbox.escrows.values()
        if one.state is State.AWAITING and market.status_of(f"escrow/{one.product_id}") == "settled"
    )
    escrow.state = State.CANCELLED  # and nobody was told
    paid = next(ref for (_, ref), each in market.sequra.sandbox.held.items() if each.shipped_minor > 1)
    market.sequra.sandbox.disburse("acme", off_minor={paid: -1})
    await market.quiet()

    ran = await market.reconcile("--json")
    found, summary = read(ran)
    assert (ran.code, summary.exit_code, summary.is_complete) == (1, 1, True), ran.err
    differing = {name: each for name, each in found.items() if each.category == "differs" and each.verdict != "parked"}
    assert {name: (each.verdict, each.difference_minor, each.owed_to) for name, each in differing.items()} == {
        f"hats/{early.reference}": ("captured_more", line.inc, "shopper"),
        f"hats/{refunded.reference}": ("captured_less", -120, "shop"),
        f"hats/{lost.reference}": ("captured_more", lost_minor, "shopper"),
        f"acme/{paid}": ("paid_less", -1, "shop"),
        f"escrow/{escrow.product_id}": ("cancelled_at_provider", -escrow.amount_minor, "shop"),
    }, ran.out
    assert "0.01 EUR less" in differing[f"acme/{paid}"].text
    assert "cartsync order resend" in differing[f"hats/{lost.reference}"].action
    assert "origin qliro" in differing[f"hats/{refunded.reference}"].action

    ran = await market.reconcile("hats", COLUMNS="400")
    assert ran.code == 1
    assert "3 of 24 orders differ" in ran.out
    assert "The shopper is owed" in ran.out

    # What the sentence says mends it.
    await market.worker.operate(COMMANDS["resend"], f"hats/{lost.reference}")
    await market.quiet()
    found, _ = read(await market.reconcile("hats", "--json"))
    assert f"hats/{lost.reference}" not in found, found[f"hats/{lost.reference}"]


def _entry(which: int, item: Item, count: int, *, is_whole: bool = False) -> list[dict[str, Any]]:
    """What a command says of one line of a transaction; `is_whole`: its price without tax, too."""
    line = {
        "MerchantReference": item.reference,
        "Type": item.type,
        "Quantity": count,
        "PricePerItemIncVat": item.inc / 100,
    }
    if is_whole:
        line |= {"PricePerItemExVat": item.ex / 100, "Description": item.description}
    return [{"PaymentTransactionId": which, "OrderItems": [line]}]


def forget_return(order: Order) -> int:
    """Qliro does not know the first return of the order any more; its amount."""
    made = next(one for one in order.transactions.values() if one.type == "Refund" and one.status == "Success")
    assert made.original is not None
    capture = order.captures[made.original]
    for action, number, item in order.actions:
        if action == "Return" and number == made.id:
            capture.returned[item.key] -= item.quantity
    capture.left += made.amount
    order.actions[:] = [each for each in order.actions if each[1] != made.id]
    del order.transactions[made.id]
    return made.amount


async def test_what_is_in_its_way_is_said(market: Market) -> None:
    """A wrong name, no topic, no broker, a provider that is down or refuses us, Ctrl-C: each has its exit code and a
    sentence, and what was found until then is said to be partial.
    """
    ran = await market.reconcile("hats", "hat")
    assert ran.code == 2
    assert "account hat is not configured; configured are: acme, hats, escrow" in ran.err

    ran = await market.reconcile(CARTSYNC_KAFKA__STATE_TOPIC="nowhere")
    assert ran.code == 72
    assert "nowhere" in ran.err

    ran = await market.reconcile(CARTSYNC_KAFKA__BOOTSTRAP_SERVERS="127.0.0.1:1")
    assert ran.code == 75
    assert "127.0.0.1:1" in ran.err

    market.qliro.sandbox.faults.denied.add("HATS")
    ran = await market.reconcile("hats", "--json")
    found, summary = read(ran)
    assert (ran.code, summary.exit_code, summary.is_complete) == (64, 64, False), ran.err
    assert {each.verdict for each in found.values()} == {"not_read"}
    assert summary.accounts[0].not_compared == summary.orders == ORDERS
    assert "refuses the credentials (401" in summary.problems[0]
    market.qliro.sandbox.faults.stop()

    # A wrong address answers, and says nothing of the orders: that is no agreement.
    ran = await market.reconcile(
        "escrow", "--json", CARTSYNC_ACCOUNTS__ESCROW__BASE_URL=f"{market.qliro.account.base_url}/nowhere"
    )
    _, summary = read(ran)
    assert (ran.code, summary.is_complete) == (75, False)
    assert "24 orders could not be read" in summary.problems[0]

    # One is down, the others are compared all the same.
    market.sequra.sandbox.disburse("acme")
    ran = await market.reconcile(CARTSYNC_ACCOUNTS__HATS__BASE_URL="http://127.0.0.1:1", COLUMNS="150")
    assert ran.code == 75, ran.out + ran.err
    assert "partial: account hats: Qliro does not answer" in ran.out, ran.out
    assert "│ agree               │        25 │" in ran.out, ran.out

    process = await asyncio.create_subprocess_exec(
        *market.command("reconcile", "hats", "--rate", "2", "--json", "--all"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=market.folder,
        env={"PYTHONPATH": str(PROJECT), "PATH": os.environ["PATH"]},
    )
    assert process.stdout is not None
    first = await asyncio.wait_for(process.stdout.readline(), 30)
    process.send_signal(signal.SIGINT)
    out, err = await asyncio.wait_for(process.communicate(), 30)
    found, summary = read(Ran(process.returncode or 0, (first + out).decode(), err.decode()))
    assert (process.returncode, summary.exit_code, summary.is_complete) == (130, 130, False), err
    assert 0 < summary.orders == len(found) < ORDERS
    assert "interrupted" in summary.problems[0]
