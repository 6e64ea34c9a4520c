"""Whose a state topic is: it belongs to one deployment, and was made from one event topic.

What is not known on either side (a record of an older version, a broker that tells no ids) is not compared.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress

import msgspec
from msgspec.structs import replace

from schemas import state
from schemas.state import Deployment, Migration, NextRecord
from worker.errors import TopicError
from worker.ports import StateEntry, TopicsSeen

_OWN = {
    "cluster": "Kafka cluster",
    "event_topic": "event topic",
    "group": "group_id",
    "prefix": "transactional_id_prefix",
}


def _differ(ours: Deployment, found: Deployment, *members: str) -> list[str]:
    pairs = ((name, getattr(ours, name), getattr(found, name)) for name in members)
    return [name for name, mine, theirs in pairs if mine and theirs and mine != theirs]


def is_foreign(ours: Deployment, found: Deployment) -> bool:
    """Another deployment has written this: its owners are known under other names, or read another topic."""
    return bool(_differ(ours, found, *_OWN))


def reads_other_input(ours: Deployment, found: Deployment) -> bool:
    """The event topic is not the one whose offsets `found` counts."""
    return bool(_differ(ours, found, "cluster", "event_topic", "event_topic_id"))


def require(ours: Deployment, last: NextRecord, *, adopt: bool, topic_epoch: int) -> None:
    """Raises `TopicError` when this deployment must not go on from there. Says what to do."""
    found = last.deployment
    if last.migration is not None:
        raise TopicError(migrating(last.migration))
    if _differ(ours, found, "partitions"):
        raise TopicError(repartitioned(ours.partitions, found.partitions))
    if (foreign := _differ(ours, found, *_OWN)) and not adopt:
        said = ", ".join(f"{_OWN[name]} {getattr(found, name)} (here {getattr(ours, name)})" for name in foreign)
        raise TopicError(
            f"the state topic belongs to another deployment, with {said}. Give this one a state topic of its own. Was "
            "it changed on purpose? Stop all workers of the former, then start one with `cartsync run --adopt-state`"
        )
    if _differ(ours, found, "state_topic_id") and not adopt:
        raise TopicError(
            "the state topic is not the one that its records were written to: it was deleted and made again while a "
            "worker ran, and orders are missing from it. Restore it from a backup, or start anew: stop all workers, "
            "make another state topic, name it in [kafka] state_topic together with another group_id, and raise "
            "[worker] topic_epoch. Is it a complete copy? Start one worker with `cartsync run --adopt-state`"
        )
    if reads_other_input(ours, found) and topic_epoch <= last.topic_epoch:
        raise TopicError(
            "the event topic is not the one that the state was made from: it was deleted and made again, and offsets "
            f"begin anew. To go on with it, from where [worker] start_at says: set [worker] topic_epoch to "
            f"{last.topic_epoch + 1}. What the former topic held beyond the state is lost"
        )


def migrating(migration: Migration) -> str:
    """What it means that the orders of a state go to another one, or come from it, and what to do."""
    other = migration.state_topic
    if not migration.is_source:
        return (
            f"the state topic is being filled with the orders of {other}, and is not complete: run `cartsync migrate "
            "partitions` again, with the settings and options that it was begun with"
        )
    return (
        f"the orders of this state topic go to {other}, with {migration.partitions} partitions: nothing is taken or "
        "sent from here any more. Was `cartsync migrate partitions` interrupted? Run it again, or take it back with "
        f"--undo. Is it done? Set [kafka] event_topic to {migration.event_topic} and state_topic to {other}, and "
        f"[worker] topic_epoch to {migration.topic_epoch}"
    )


def identified(ours: Deployment, seen: TopicsSeen) -> Deployment:
    """Our deployment, with what the brokers say of the topics."""
    return replace(
        ours,
        cluster=seen.cluster,
        partitions=seen.event_partitions,
        event_topic_id=seen.event_topic_id,
        state_topic_id=seen.state_topic_id,
    )


def require_all(
    ours: Deployment, newest: Mapping[int, Sequence[StateEntry]], *, adopt: bool, topic_epoch: int
) -> list[Deployment]:
    """As `require`, for all partitions by their newest entries. Returns the other deployments that are adopted."""
    former = {}
    for entries in newest.values():
        if (last := newest_next(entries)) is not None:
            require(ours, last, adopt=adopt, topic_epoch=topic_epoch)
            if is_foreign(ours, last.deployment):
                former[last.deployment.prefix, last.deployment.event_topic] = last.deployment
    return list(former.values())


def repartitioned(partitions: int, before: int) -> str:
    """What it means that the event topic has another number of partitions than the state was written with."""
    return (
        f"the event topic has {partitions} partitions, and the state was written with {before}: keys have moved "
        "between partitions, and an order's events lie in two of them. Neither more partitions of the state topic nor "
        f"a new one mends that. Stop all workers, and let the shop write to a new event topic with {before} partitions,"
        " beginning with what it wrote since others were added; name it in [kafka] event_topic, raise [worker] "
        "topic_epoch, and start one worker with `cartsync run --adopt-state`. From then on, `cartsync migrate "
        "partitions` gives another number of partitions"
    )


def newest_next(entries: Sequence[StateEntry]) -> NextRecord | None:
    """The newest `m:next` of these entries; what cannot be read is left to a restore, which says where it lies."""
    for entry in reversed(entries):
        if entry.key == state.NEXT_KEY and entry.value is not None:
            with suppress(msgspec.MsgspecError):
                return state.decode_next(entry.value)
    return None


def changed(ours: Deployment, seen: TopicsSeen) -> str:
    """What has become of the topics since the worker started, and what to do; empty: they are what they were."""
    if not seen.event_partitions and seen.state_partitions:
        return "the event topic is gone. Nothing of the state is lost: make the topic again, and start a worker"
    if not seen.state_partitions:
        if seen.event_partitions:
            gone = "the state topic is gone, and all orders with it"
        else:
            gone = "the event topic and the state topic are gone, and all orders with them"
        return (
            f"{gone}. Restore the state from a backup; or start anew: make another state topic, name it in [kafka] "
            "state_topic together with another group_id, and raise [worker] topic_epoch"
        )
    if seen.event_partitions != ours.partitions:
        return repartitioned(seen.event_partitions, ours.partitions)
    if seen.state_partitions != ours.partitions:
        return (
            f"the state topic has {seen.state_partitions} partitions now, and the event topic {ours.partitions}: they "
            "must be equal. Restore the state into a topic with as many as the event topic"
        )
    now = identified(ours, seen)
    if _differ(ours, now, "cluster"):
        return (
            f"another Kafka cluster answers ({now.cluster} instead of {ours.cluster}); the next start says what to do"
        )
    names = {"event_topic_id": "event topic", "state_topic_id": "state topic"}
    if others := _differ(ours, now, *names):
        said = " and ".join(names[name] for name in others)
        verb = "were" if len(others) > 1 else "was"
        return f"the {said} {verb} deleted and made again while this worker ran; the next start says what to do"
    return ""
