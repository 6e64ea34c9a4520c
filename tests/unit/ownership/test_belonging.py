"""Whose a state is: what is compared, what is refused, and what each refusal tells people to do."""

import re

import pytest
from msgspec.structs import replace

from schemas.state import NEXT_KEY, SCHEMA, Deployment, Migration, NextRecord, encode
from worker.errors import TopicError
from worker.ownership.belonging import changed, identified, newest_next, reads_other_input, require, require_all
from worker.ports import StateEntry, TopicsSeen

SEEN = TopicsSeen("c1", "e1", "s1", 12, 12)
OURS = identified(Deployment(event_topic="orders.events", group="cartsync", prefix="cartsync"), SEEN)


def following(found: Deployment, topic_epoch: int = 0) -> NextRecord:
    """An `m:next` that another worker left."""
    return NextRecord(SCHEMA, 7, topic_epoch, True, "v", None, found)


def test_what_is_not_known_is_not_compared() -> None:
    """An older version told nothing, and an older broker tells no ids: that refuses nobody."""
    require(OURS, following(Deployment()), adopt=False, topic_epoch=0)
    require(OURS, following(replace(OURS, event_topic_id="", state_topic_id="")), adopt=False, topic_epoch=0)
    require(replace(OURS, cluster=""), following(OURS), adopt=False, topic_epoch=0)
    assert changed(OURS, replace(SEEN, event_topic_id="", state_topic_id="", cluster="")) == ""


@pytest.mark.parametrize(
    ("member", "adopt", "topic_epoch", "said"),
    [
        ({"group": "b"}, False, 9, "another deployment, with group_id b (here cartsync)"),
        ({"group": "b"}, True, 0, ""),
        ({"prefix": "b"}, False, 9, "transactional_id_prefix b"),
        ({"prefix": "b"}, True, 0, ""),
        ({"event_topic": "b"}, False, 9, "event topic b"),
        ({"event_topic": "b"}, True, 0, "topic_epoch to 1"),
        ({"event_topic": "b"}, True, 1, ""),
        ({"cluster": "b"}, False, 9, "Kafka cluster b"),
        ({"cluster": "b"}, True, 1, ""),
        ({"state_topic_id": "b"}, False, 9, "orders are missing from it"),
        ({"state_topic_id": "b"}, True, 0, ""),
        ({"event_topic_id": "b"}, True, 0, "topic_epoch to 1"),
        ({"event_topic_id": "b"}, False, 1, ""),
        ({"partitions": 6}, True, 9, "has 12 partitions, and the state was written with 6"),
    ],
)
def test_what_is_refused(member: dict[str, str | int], adopt: bool, topic_epoch: int, said: str) -> None:
    """Names can be adopted, a new event topic needs a higher epoch, another number of partitions nothing mends."""
    last = following(replace(OURS, **member))
    if said:
        with pytest.raises(TopicError) as caught:
            require(OURS, last, adopt=adopt, topic_epoch=topic_epoch)
        assert said in str(caught.value)
    else:
        require(OURS, last, adopt=adopt, topic_epoch=topic_epoch)


@pytest.mark.parametrize("adopt", [False, True])
def test_a_state_that_is_migrated_is_nobodys(adopt: bool) -> None:
    """Neither the old one, once it was begun, nor the new one before it is complete; adopting does not help."""
    for is_source, said in ((True, "[worker] topic_epoch to 3"), (False, "is being filled with the orders of s2")):
        last = replace(following(OURS), migration=Migration(is_source, "e2", "s2", 24, 3))
        with pytest.raises(TopicError, match=re.escape(said)):
            require(OURS, last, adopt=adopt, topic_epoch=9)


def test_offsets_begin_anew_with_another_event_topic_only() -> None:
    """Another group reads on where the former one stopped."""
    assert not reads_other_input(OURS, replace(OURS, group="b", prefix="b", state_topic_id="b"))
    for member in ("cluster", "event_topic", "event_topic_id"):
        assert reads_other_input(OURS, replace(OURS, **{member: "b"}))


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (SEEN, ""),
        (replace(SEEN, event_partitions=0, event_topic_id=""), "event topic is gone"),
        (replace(SEEN, state_partitions=0, state_topic_id=""), "state topic is gone, and all orders with it"),
        (TopicsSeen(), "the event topic and the state topic are gone, and all orders with them"),
        (replace(SEEN, event_partitions=13), "has 13 partitions, and the state was written with 12"),
        (replace(SEEN, state_partitions=13), "has 13 partitions now, and the event topic 12"),
        (replace(SEEN, event_topic_id="e2"), "the event topic was deleted and made again"),
        (replace(SEEN, state_topic_id="s2"), "the state topic was deleted and made again"),
        (replace(SEEN, event_topic_id="e2", state_topic_id="s2"), "the event topic and state topic were deleted"),
        (replace(SEEN, cluster="c2"), "another Kafka cluster"),
    ],
)
def test_what_becomes_of_topics(now: TopicsSeen, said: str) -> None:
    """Each change has its words."""
    assert said in changed(OURS, now)
    assert bool(changed(OURS, now)) is bool(said)


def test_newest_of_all_partitions_is_judged() -> None:
    """Garbage and barriers are passed over; one foreign partition is enough, and each deployment is adopted once."""
    foreign = replace(OURS, prefix="b")
    newest = {
        0: [],
        1: [StateEntry(0, NEXT_KEY, encode(following(OURS))), StateEntry(1, NEXT_KEY, b"garbage")],
        2: [StateEntry(0, NEXT_KEY, encode(following(foreign))), StateEntry(1, b"m:owner", b"")],
        3: [StateEntry(0, NEXT_KEY, encode(following(foreign)))],
    }
    found = newest_next(newest[1])
    assert found is not None
    assert found.deployment == OURS
    with pytest.raises(TopicError, match="another deployment"):
        require_all(OURS, newest, adopt=False, topic_epoch=0)
    assert require_all(OURS, newest, adopt=True, topic_epoch=0) == [foreign]
    assert require_all(OURS, {0: newest[0], 1: newest[1]}, adopt=False, topic_epoch=0) == []
