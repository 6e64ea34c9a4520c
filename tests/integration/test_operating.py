"""Operators act by events, with workers as processes on a real Kafka: from the command line, whichever worker has what."""

import asyncio
import json
from typing import Any

from tests.integration.conftest import OpenStage
from tests.integration.harness import Stage
from tests.integration.process import Ran, until
from tests.shops.by_hand import ACCOUNT, line

SECRETS = '\n[callbacks]\nrecord_secrets = ["what workers and operators share, of 32 characters"]\n'
SUBJECT = f"{ACCOUNT}/1001"


async def opened(open_stage: OpenStage, partitions: int) -> Stage:
    """A stage whose workers and commands share the secrets."""
    stage = await open_stage(partitions=partitions)
    file = stage.folder / "cartsync.toml"
    file.write_text(file.read_text() + SECRETS)
    return stage


async def shipped(stage: Stage, subject: str) -> None:
    """An order that is to be told."""
    order = stage.order(subject)
    await order.confirm(line("mug", 1000))
    await order.ship("s1", mug=1)


async def told(stage: Stage, subject: str, times: int) -> None:
    """Until the provider was told so often."""
    await until(lambda: len(stage.attempts(subject)) >= times, 30, stage.tails)
    assert len(stage.attempts(subject)) == times


async def operated(stage: Stage) -> list[dict[str, Any]]:
    """The audit trail, in the order in which it was written in each partition."""
    bodies = [json.loads(each.value) for each in await stage.results(0)]
    return [body for body in bodies if body["type"] == "cartsync.operated"]


async def act(stage: Stage, *words: str, within_s: float = 60) -> Ran:
    """A command that must do what it is asked."""
    ran = await stage.command(*words, "--by", "ana", within_s=within_s)
    assert ran.code == 0, f"{ran.out}{ran.err}\n{stage.tails()}"
    return ran


async def test_operators_act_by_events(open_stage: OpenStage) -> None:
    """A resend counts once and is told; a pause reaches a worker that starts after its first one was killed, until a
    resume; what is forgotten is gone.
    """
    stage = await opened(open_stage, 2)
    first = await stage.started()
    await shipped(stage, SUBJECT)
    await told(stage, SUBJECT, 1)

    ran = await act(stage, "order", "resend", "1001", "--why", "ticket 4711", "--json")
    assert json.loads(ran.out) == {"subject": SUBJECT, "done": True, "detail": "will be sent again"}
    await told(stage, SUBJECT, 2)
    assert "nothing to release" in (await act(stage, "order", "release", SUBJECT)).out

    ran = await act(stage, "account", "pause", ACCOUNT, "--why", "maintenance")
    assert "paused; taken in 2 of 2 partitions" in ran.out
    await shipped(stage, f"{ACCOUNT}/1002")
    first.kill()
    second = await stage.started()
    await asyncio.sleep(5)
    assert stage.attempts(f"{ACCOUNT}/1002") == []
    paused = {view.name: view.paused for view in (await second.status()).accounts}
    assert paused[ACCOUNT] == f"account {ACCOUNT} paused by an operator"
    await act(stage, "account", "resume", ACCOUNT)
    await told(stage, f"{ACCOUNT}/1002", 1)

    without = await stage.command("order", "forget", SUBJECT)
    assert without.code == 2
    assert "needs a reason" in without.err
    await act(stage, "order", "forget", SUBJECT, "--why", "erasure request")
    unknown = await stage.command("order", "note", "1003", "--why", "?")
    assert unknown.code == 2
    assert "no order 1003" in unknown.err

    trail = await operated(stage)
    by_command = [(each["data"]["command"], each["data"]["by"], each["data"]["done"]) for each in trail]
    assert sorted(by_command) == [
        ("forget", "ana", True),
        *[("pause", "ana", True)] * 2,
        ("release", "ana", False),
        ("resend", "ana", True),
        *[("resume", "ana", True)] * 2,
    ]
    assert {each["data"].get("why") for each in trail} == {None, "ticket 4711", "maintenance", "erasure request"}


async def test_all_parked_orders_by_events(open_stage: OpenStage) -> None:
    """Of all workers, with one command that asks none of them."""
    stage = await opened(open_stage, 4)
    await asyncio.gather(*(worker.serving(2, within_s=60) for worker in (stage.start(), stage.start())))
    subjects = [f"{ACCOUNT}/{number}" for number in range(12)]
    stage.script(subjects, "422", 1)
    await asyncio.gather(*(shipped(stage, subject) for subject in subjects))
    for subject in subjects:
        await told(stage, subject, 1)
    ran = await act(stage, "order", "release", "--all", "--account", ACCOUNT, "--reason-contains", "no such reason")
    assert ran.out == f"account {ACCOUNT}: no order is parked whose reason contains that\n"
    every = ("order", "release", "--all", "--account", ACCOUNT, "--reason-contains", "422", "--why", "mended", "--json")
    ran = await act(stage, *every, "--rate", "1000")
    assert json.loads(ran.out)["released"] == 12
    await stage.agreed(dict.fromkeys(subjects, (1000, 0)))
    trail = await operated(stage)
    assert {(each["data"]["command"], each["data"]["by"], each["data"].get("why")) for each in trail} == {
        ("release", "ana", "mended")
    }
    assert sorted(each["subject"] for each in trail) == sorted(subjects)


async def test_private_port_writes_the_same_events(open_stage: OpenStage) -> None:
    """Where the worker has the secrets; and nobody else's event is believed."""
    stage = await opened(open_stage, 1)
    worker = await stage.started()
    await shipped(stage, SUBJECT)
    await told(stage, SUBJECT, 1)
    ran = await act(stage, "order", "resend", SUBJECT, "--url", worker.url)
    assert "will be sent again" in ran.out
    await told(stage, SUBJECT, 2)
    assert [each["data"]["command"] for each in await operated(stage)] == ["resend"]
    forged = {
        "specversion": "1.0",
        "id": "1",
        "source": "/mallory",
        "type": "operator.resend",
        "time": "2026-01-01T00:00:00Z",
        "subject": SUBJECT,
        "data": {"by": "mallory"},
    }
    await stage.write(SUBJECT.encode(), json.dumps(forged).encode())
    [letter] = await stage.dead_letters(1)
    assert dict(letter.headers)["x-dlq-reason"] == b"not_trusted"
    assert len(stage.attempts(SUBJECT)) == 2
