"""Owners that take our partitions over while the group leaves them with us: another deployment uses our names."""

from collections.abc import Callable
from functools import partial

import structlog

from worker.errors import CartsyncError, TwoOwnersError
from worker.ownership.context import Context
from worker.ownership.settings import AssignmentSettings

log = structlog.get_logger(__name__)


class CompetingOwners:
    """Counts them, by partition; once may be a rebalance under way, again and again is none."""

    def __init__(self, context: Context, settings: AssignmentSettings, fatal: Callable[[CartsyncError], None]) -> None:
        self._context = context
        self._settings = settings
        self._fatal = fatal
        self._began_at = context.clock.now()
        self._seen: dict[int, list[tuple[int, float]]] = {}
        """By partition of this assignment: the barriers of such owners, and when they were found."""

    def forget(self) -> None:
        """The group has assigned partitions again."""
        self._seen.clear()

    def after_loss(self, partition: int, *, was_fenced: bool) -> Callable[[tuple[str, int] | None], None]:
        """What an owner that comes after a lost one calls with the newest owner that it finds, and the offset of its
        barrier; `None`: with none, so if we were fenced, it is by somebody who uses our ids, but not our state topic.
        """
        return partial(self._found, partition, was_fenced)

    def _found(self, partition: int, was_fenced: bool, owner: tuple[str, int] | None) -> None:
        if owner is not None or was_fenced:
            self._note(partition, owner)

    def _note(self, partition: int, owner: tuple[str, int] | None) -> None:
        now, settings = self._context.clock.now(), self._settings
        before = self._seen.get(partition, [])
        if owner is not None and any(barrier == owner[1] for barrier, _ in before):
            return  # read again
        recent = [(barrier, at) for barrier, at in before if now - at < settings.competing_s]
        self._seen[partition] = [*recent, (-1 if owner is None else owner[1], now)]
        name = "unknown" if owner is None else owner[0]
        log.error("partition_taken_by_another_owner", partition=partition, owner=name, again=bool(recent))
        age_s = now - self._began_at
        if len(recent) + 1 < min(settings.competing_max, 2 + int(age_s / settings.competing_s)):
            return
        ours = self._context.deployment
        self._fatal(
            TwoOwnersError(
                f"partition {partition} is assigned to us, but worker {name} keeps taking it over: "
                "another deployment writes to the same state topic under the same transactional_id_prefix. Stop "
                "one of them, or give it a state topic, a prefix and a group of its own"
                if owner is not None
                else f"partition {partition} is assigned to us, but somebody with another state topic fences us "
                f"again and again: another deployment has the same transactional_id_prefix ({ours.prefix}) for the "
                f"same event topic ({ours.event_topic}). Give this one a transactional_id_prefix of its own"
            )
        )
