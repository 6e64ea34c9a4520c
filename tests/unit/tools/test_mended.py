"""How an event of a dead letter is put together anew: what is set, what is given, what must not be."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.shops.events import confirmed, envelope, goods
from worker.config import editor_of
from worker.core.letters import Marker, Refused
from worker.errors import UsageError
from worker.tools.letters.editing import edited
from worker.tools.letters.replaying import Mending, already, mended_of

EVENT = envelope(confirmed(goods("A", 2, 200)))
SUBJECT = str(EVENT["subject"])


def refused(value: Any = EVENT, key: bytes | None = SUBJECT.encode()) -> Refused:
    """A record that was refused."""
    return Refused(key, json.dumps(value).encode(), [], "orders.events", 0, 7, "")


def test_set_and_removed() -> None:
    """Single values; the key stays."""
    event, record = mended_of(refused(), Mending(sets=[(("id",), "e7")], removals=[("data", "lines", 0)]))
    assert (event["id"], event["data"]["lines"]) == ("e7", [])
    assert (record.key, json.loads(record.value)) == (SUBJECT.encode(), event)


@pytest.mark.parametrize(("key", "expected"), [(SUBJECT.encode(), b"acme/other"), (b"77", b"77")])
def test_key_follows_the_subject(key: bytes, expected: bytes) -> None:
    """Where it was the subject; another one means something else."""
    for mending in (
        Mending(sets=[(("subject",), "acme/other")]),
        Mending(whole=json.dumps(EVENT | {"subject": "acme/other"})),
    ):
        _, record = mended_of(refused(key=key), mending)
        assert record.key == expected


def test_given_as_a_whole() -> None:
    """Whatever the value was; and what is set comes on top."""
    broken = Refused(b"k", b"\xff", [], "orders.events", 0, 7, "")
    event, record = mended_of(broken, Mending(whole=json.dumps(EVENT), sets=[(("id",), "e7")]))
    assert (event, record.key) == (EVENT | {"id": "e7"}, b"k")


def test_edited() -> None:
    """A person gets what was set already, and says the last word."""
    seen = []

    def edit(text: str) -> str:
        seen.append(json.loads(text))
        return json.dumps(seen[0] | {"source": "/by/hand"})

    event, _ = mended_of(refused(), Mending(sets=[(("id",), "e7")], edit=edit))
    assert seen == [EVENT | {"id": "e7"}]
    assert event == EVENT | {"id": "e7", "source": "/by/hand"}


@pytest.mark.parametrize(
    ("found", "mending", "said"),
    [
        (refused({"type": "provider.risk"}), Mending(sets=[(("id",), "x")]), "its MAC is over the very bytes"),
        (refused(), Mending(sets=[(("type",), "operator.release")]), "needs their MAC"),
        (refused(), Mending(whole='{"type": "provider.risk"}'), "needs their MAC"),
        (refused(), Mending(whole="{"), "the event is not JSON"),
        (refused(), Mending(whole="[]"), "has to be one JSON object"),
        (refused(), Mending(edit=lambda _text: "no"), "the event is not JSON"),
        (refused(), Mending(), "nothing was changed"),
        (refused(), Mending(sets=[(("id",), EVENT["id"])]), "nothing was changed"),
        (refused(), Mending(key=SUBJECT.encode()), "nothing was changed"),
        (refused(), Mending(whole=json.dumps(EVENT, indent=4)), "nothing was changed; to write it as it is, replay it"),
    ],
)
def test_what_is_not_mended(found: Refused, mending: Mending, said: str) -> None:
    """What needs a secret, what is no event, what is as it was."""
    with pytest.raises(UsageError, match=said):
        mended_of(found, mending)


def test_another_key_or_partition_is_a_change() -> None:
    """The event itself may have been right."""
    assert mended_of(refused(), Mending(key=b"k"))[1].key == b"k"
    assert mended_of(refused(), Mending(partition=1))[0] == EVENT


def test_editor(tmp_path: Path) -> None:
    """It gets the text in a file; what is left there counts. One that fails, or changes nothing, ends it."""
    assert edited("a\n", "sed -i s/a/b/") == "b\n"
    for command, said in (
        ("true", "nothing was changed"),
        ("false", "has failed"),
        (str(tmp_path / "none"), "has failed"),
    ):
        with pytest.raises(UsageError, match=said):
            edited("a\n", command)
    assert editor_of({"EDITOR": "nano", "VISUAL": ""}) == "nano"
    assert editor_of({"EDITOR": "nano", "VISUAL": "code --wait"}) == "code --wait"
    assert editor_of({}) == "vi"


def test_what_was_dealt_with() -> None:
    """Who did, and as what it was written."""
    assert already(Marker(7, "mended", "ana@shop", "orders.events/0/9")) == (
        "it was mended already by ana@shop, as orders.events/0/9"
    )
    assert already(Marker(7, "dismissed", why="a test")) == "it was dismissed already: a test"
