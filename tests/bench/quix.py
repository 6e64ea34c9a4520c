"""A program for Quix Streams that does about the work of the `consume` row: see `peers.py`, which runs it with an
interpreter that has `quixstreams`. It imports nothing of ours, for that interpreter has none of our libraries.

Untyped JSON, the state of an order is its newest event and how often it has named each article; no check of what comes,
no known duplicates, no outbox. Says `[events, seconds, seconds of CPU]` from the first event to the last.
"""

import json
import sys
import time
from importlib import import_module
from typing import Any


def main() -> None:
    """The settings are the one argument, as JSON."""
    settings = json.loads(sys.argv[1])
    quixstreams = import_module("quixstreams")  # not in our lock, so nothing knows its types
    app = quixstreams.Application(
        broker_address=settings["bootstrap_servers"],
        consumer_group=settings["group_id"],
        auto_offset_reset="earliest",
        processing_guarantee="exactly-once",
        commit_interval=settings["commit_interval_s"],
        state_dir=settings["folder"],
        loglevel="WARNING",
    )
    topic = app.topic(settings["event_topic"], key_deserializer="bytes", value_deserializer="json")
    marks: list[tuple[float, float]] = []
    taken = 0

    def take(event: dict[str, Any], state: Any) -> None:
        nonlocal taken
        if taken in {0, settings["total"] - 1}:
            marks.append((time.perf_counter(), time.process_time()))
        taken += 1
        known = state.get("order", {"articles": {}})
        for line in event["data"].get("lines", ()):
            article = line.get("reference") or line.get("line_id")
            known["articles"][article] = known["articles"].get(article, 0) + 1
        known["event"] = event
        state.set("order", known)

    app.dataframe(topic).update(take, stateful=True)
    app.run(count=settings["total"], timeout=60.0, collect=False)
    (began, cpu_began), (ended, cpu_ended) = marks
    sys.stdout.write(json.dumps([taken, ended - began, cpu_ended - cpu_began]) + "\n")


if __name__ == "__main__":
    main()
