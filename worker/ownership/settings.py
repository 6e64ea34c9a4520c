"""How partitions are acquired, fed and released."""

from msgspec import Struct


class AssignmentSettings(Struct, frozen=True):
    """Times in seconds, counts of records and of partitions."""

    poll_records_max: int = 2_000
    poll_timeout_s: float = 1.0
    drain_s: float = 8.0
    """What attempts under way get when a partition leaves; then they are given up and marked."""
    leave_s: float = 20.0
    """What the last transaction may take after that, before it is given up: safe, but the next owner has to hold.
    Together they stay below the rebalance timeout.
    """
    stop_leave_s: float = 7.0
    """The same when the whole worker stops, which has to end before its supervisor kills it (30 s are usual): with
    brokers away, all that can be done is to end.
    """
    keep_warm_s: float = 900.0
    """For how long a released partition is remembered."""
    restores_max: int = 4
    """Restores at the same time."""
    group_commit_s: float = 5.0
    check_s: float = 10.0
    """How often it is looked whether brokers answer, and topics are what they were."""
    recheck_s: float = 1.0
    """When they are not: a broker that has just come up may not know all topics yet."""
    unreachable_s: float = 30.0
    """After so long without an answer brokers count as away: heartbeats and looks ask more often than that."""
    unreachable_exit_s: float = 600.0
    retry_s: float = 0.5
    """Before a lost partition is acquired again; doubles up to ten times this."""
    damaged_retry_s: float = 60.0
    """Before a partition whose state is damaged is tried again: somebody may have mended it."""
    blocked_s: float = 60.0
    """For how long an open transaction of somebody may hold up the input before that is said, again and again."""
    competing_s: float = 60.0
    """So often within this time a partition of ours was taken over by somebody else: we are not alone."""
    competing_max: int = 6
    """Twice for a worker that has just come, once more for each `competing_s` that it has been there: the one that came
    later goes first, and production stays.
    """
