"""What operators' commands do to an order's record (`core.commands`)."""

from collections.abc import Callable, Mapping

from schemas.state import OrderRecord
from worker.core.record import release_by_operator, resend

Change = Callable[[OrderRecord, int], OrderRecord]
"""The record as an operator wants it, as of a UTC time in ms; the very same one: there is nothing to change."""

EFFECTS: Mapping[str, Change] = {
    "release": release_by_operator,
    "resend": resend,
}
"""By command."""
