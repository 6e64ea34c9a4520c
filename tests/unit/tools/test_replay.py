"""Replays: what is sent, under which keys, and what is said before."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.shops.events import confirmed, envelope, goods, shipped
from worker import logs
from worker.errors import TwoOwnersError
from worker.providers.sequra.options import SequraAccount
from worker.sim.loop import VirtualClock, VirtualLoop
from worker.sim.scripted import Answer, ScriptedProvider
from worker.tools import replay

ACCOUNTS = {"acme": SequraAccount("acme", "sequra", "https://provider.example", "acme", "u", "p")}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with logs.capture([]):
        yield


def written(folder: Path, *references: str) -> Path:
    """A file in which these orders are confirmed and shipped."""
    lines = []
    for reference in references:
        for number, told in enumerate((confirmed(goods("A", 1, 100)), shipped("s1", A=1)), 1):
            event = envelope(told.but(subject=f"acme/{reference}", source=f"/{reference}"), number)
            lines.append(msgspec.json.encode(event))
    path = folder / "events.jsonl"
    path.write_bytes(b"\n".join(lines))
    return path


def sent(path: Path, run_id: str, *answers: Answer) -> list[str]:
    """The idempotency keys of a replay that sends."""
    loop = VirtualLoop()
    clock = VirtualClock(loop)
    provider = ScriptedProvider(ACCOUNTS, clock)
    provider.answer(list(answers))
    try:
        sender = replay._OwnKeys(provider, run_id)
        replayed = loop.run_until_complete(replay._replay(replay.read_lines(path), ACCOUNTS, clock, sender))
        loop.run_until_complete(sender.close())
    finally:
        loop.close()
    assert [view.status for view in replayed.views] == ["settled"] * len(replayed.views)
    return [exchange.headers["Idempotency-Key"] for exchange in provider.exchanges]


def test_keys_are_of_one_replay(tmp_path: Path) -> None:
    """No worker uses them, nor another replay of the same file; a retry within one replay keeps its own."""
    path = written(tmp_path, "1")
    assert sent(path, "one", Answer(status=503)) == ["replay-one:acme%2F1:2"] * 2
    assert sent(path, "two") == ["replay-two:acme%2F1:2"]


def test_nothing_is_sent_unless_it_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By default it prints, whoever else may be running."""

    def workers() -> list[str]:
        raise AssertionError

    assert replay.run_replay(written(tmp_path, "1"), ACCOUNTS, send=False, workers=workers) == 0
    out, err = capsys.readouterr()
    assert "PUT https://provider.example/merchants/acme/orders/1" in out
    assert err == ""


def test_not_beside_workers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With a worker running nothing is sent, nor said of what would be overwritten."""
    with pytest.raises(TwoOwnersError, match=r"running workers \(one, two\)"):
        replay.run_replay(written(tmp_path, "1"), ACCOUNTS, send=True, workers=lambda: ["one", "two"])
    assert capsys.readouterr() == ("", "")


def test_what_is_overwritten_is_said_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each order's address, of many the first ones and how many more there are."""
    monkeypatch.setattr(replay, "_SHOWN_MAX", 2)
    path = written(tmp_path, "1", "2", "3")
    replay._announce(path, replay.read_lines(path), ACCOUNTS)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        f"3 orders will be overwritten at their providers with the result of {path} alone:",
        "  PUT https://provider.example/merchants/acme/orders/1",
        "  PUT https://provider.example/merchants/acme/orders/2",
        "  and 1 more",
    ]
