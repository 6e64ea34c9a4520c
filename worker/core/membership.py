"""The name by which a consumer group knows a worker again: Kafka's `group.instance.id` (KIP-345). Pure.

A worker without a name that was killed and comes back is a new member: all others release their partitions, and wait
for the dead one until its session has ended. With a name it takes its former place: it has its partitions back at
once, and nobody else notices. Only availability depends on it: fence and lease say who may write and send.
"""

import re

SHARED_WITHIN_S = 600.0
"""Two losses of a membership within so long mean that somebody else joins under its name, and takes it away again."""
AUTOMATIC = "auto"
"""Instead of a name: `name_of` the worker."""
NAME_MAX = 200
_FOREIGN = re.compile(r"[^A-Za-z0-9._-]")
"""Not in a name that Kafka takes."""


class MemberName:
    """The name of one member, until it turns out that another process has the same."""

    def __init__(self, name: str) -> None:
        """An empty one: it has none."""
        self.current = name
        self._lost_at = float("-inf")

    def lost(self, now: float) -> bool:
        """The group did not know this member any more: its session ended, or another one joined under its name.

        Returns whether the name is given up, for two that take it from each other would stop each other's partitions
        again and again. `now`: seconds on the monotonic clock.
        """
        is_shared = bool(self.current) and now - self._lost_at < SHARED_WITHIN_S
        self._lost_at = now
        if is_shared:
            self.current = ""
        return is_shared


def is_name(text: str) -> bool:
    """Whether Kafka takes it, which is as particular as with the names of topics."""
    return 0 < len(text) <= NAME_MAX and _FOREIGN.search(text) is None and text not in {".", ".."}


def name_of(host: str, port: int) -> str:
    """The name of a worker that was given none: of its machine and its private port, which two processes hardly ever
    share. Empty where that says nothing: any free port, or a machine that is called like all others.
    """
    if not port or not host or host.partition(".")[0] == "localhost":
        return ""
    return f"{_FOREIGN.sub('-', host)[: NAME_MAX - 6]}-{port}"
