"""Whether brokers answer, and whether the topics are still what they were when the worker started."""

import asyncio
from collections.abc import Callable

import structlog

from worker.errors import CartsyncError, LogError, TopicError
from worker.ownership.belonging import changed
from worker.ownership.context import Context
from worker.ownership.settings import AssignmentSettings
from worker.ports import TopicsSeen

log = structlog.get_logger(__name__)


class BrokerWatch:
    """Looks every few seconds, and ends the worker when it cannot go on."""

    def __init__(self, context: Context, settings: AssignmentSettings, fatal: Callable[[CartsyncError], None]) -> None:
        self._context = context
        self._settings = settings
        self._fatal = fatal
        self._unreachable_since: float | None = None

    async def run(self) -> None:
        """Until it is cancelled, or the topics are not what they were."""
        context, settings = self._context, self._settings
        strange: TopicsSeen | None = None
        while True:
            await asyncio.sleep(settings.check_s if strange is None else settings.recheck_s)
            self._heed_silence()
            try:
                seen = await context.events.describe_topics()
            except LogError as error:
                log.debug("topics_not_seen", error=str(error))
                continue
            what = changed(context.deployment, seen)
            if what and strange == seen:  # twice: a broker that has just come up may not know all topics yet
                self._fatal(TopicError(what))
                return
            strange = seen if what else None

    def _heed_silence(self) -> None:
        silent_s = self._context.events.silent_s()
        now = self._context.clock.now()
        if silent_s > self._settings.unreachable_s:
            if self._unreachable_since is None:
                self._unreachable_since = now - silent_s
                log.error("kafka_unreachable", seconds=round(silent_s), exit_after_s=self._settings.unreachable_exit_s)
            if silent_s > self._settings.unreachable_exit_s:
                self._fatal(LogError(f"no Kafka broker has answered for {silent_s:.0f} s: a new start may find them"))
        elif self._unreachable_since is not None:
            log.warning("kafka_reached_again", seconds=round(now - silent_s - self._unreachable_since))
            self._unreachable_since = None
