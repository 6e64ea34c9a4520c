"""What people call the state of an order's record: settled, owed, parked, or waiting for something (`DOMAIN.md`)."""

from typing import Literal

from schemas.state import OrderHeader, OrderRecord
from schemas.views import Status
from worker.core.order import Standing
from worker.core.policy import DeliveryPolicy


def status(
    record: OrderRecord, assessment: Standing, *, now_ms: int, rules: DeliveryPolicy, is_overdue: bool = False
) -> Status:
    """The first that holds of `DOMAIN.md` section 4. `is_overdue`: its owner knows that it waits for too long."""
    if assessment.state == "inconsistent":
        began = record.inconsistent_since_ms
        if began and now_ms >= began + rules.inconsistent_after_s * 1000:
            is_overdue = True
        return "parked" if is_overdue else "inconsistent"
    if assessment.state == "unconfirmed" and record.sealed.observed and is_only_shown(record):
        return "settled"
    if assessment.state != "ready":
        return assessment.state
    return ready_status(record)


def ready_status(header: OrderHeader) -> Literal["settled", "parked", "owed"]:
    """Of an order whose facts say that its provider may be told."""
    if header.revision == header.acked:
        return "settled"
    return "parked" if is_parked(header) else "owed"


def is_only_shown(record: OrderRecord) -> bool:
    """Whether nobody waits for its confirmation: all that is known of it was told for itself (statistics, money)."""
    return not record.sealed.confirmation and record.revision == record.acked


def is_parked(header: OrderHeader) -> bool:
    """Whether the newest revision is known to be parked."""
    return header.park is not None and header.park.revision == header.revision
