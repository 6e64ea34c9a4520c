"""Everything that holds or reads orders' state, from the backend that keeps it: Kafka's topics.

A second backend is chosen here, for the worker and for all tools: nobody else imports the modules that are named below
(`tests/test_layout.py`).
"""

from collections.abc import Callable

from worker.kafka.following import KafkaRecords
from worker.kafka.reading import bounds, records
from worker.kafka.scan import KafkaStateScan
from worker.kafka.settings import KafkaSettings
from worker.kafka.state import KafkaStateLog, find_entries, find_orders, find_value, newest_entries
from worker.ports import Records, StateLog, StateScan

__all__ = [
    "bounds",
    "find_entries",
    "find_orders",
    "find_value",
    "newest_entries",
    "open_records",
    "open_state_log",
    "open_state_scan",
    "records",
]


def open_state_log(settings: KafkaSettings) -> StateLog:
    """What a worker writes the state with, and restores it from."""
    return KafkaStateLog(settings)


def open_state_scan(
    settings: KafkaSettings,
    wanted: Callable[[str], bool],
    on_other: Callable[[int, bytes, bytes | None], None] | None = None,
) -> StateScan:
    """What a tool reads all orders with. `wanted`: of subjects. `on_other`: gets partition, key and value of each
    record that is of no order, in the order in which they were written.
    """
    return KafkaStateScan(settings, wanted, on_other)


def open_records(settings: KafkaSettings) -> Records:
    """What follows the state and the topics beside it as they grow."""
    return KafkaRecords(settings)
