"""What an order keeps of what its provider says, and which of it makes us look again. Pure.

Each kind is a last-writer-wins register by (time, position): what a provider says has no `sequence`, so it competes
with the shop's own events by time alone, the newest of the one with the newest of the other (`Facts.payment_now`,
`cancellation_now`). Pairwise in one heap, with sequences between the shop's, it would go round in circles, and the
order of arrival would count.
"""

from collections.abc import Callable, Mapping
from typing import Any

from msgspec import UNSET, Struct, msgpack
from msgspec.structs import replace

from schemas import provider_events as p
from schemas.envelope import Data
from schemas.events import PROVIDER_TYPES, OrderEvent, data_of, event_type
from schemas.facts import (
    APPROVED_UNLESS_REFUSED,
    Disbursement,
    Facts,
    Moment,
    Packed,
    ProviderFacts,
    pack,
    unpack_details,
)
from schemas.views import ProviderView, Said

DISBURSED_MAX = 100
"""Lines of disbursements that are kept of an order one by one."""

Members = dict[str, Any]
"""Members of `ProviderFacts` that change."""


Keep = Callable[[ProviderFacts, OrderEvent, Moment], Members]


class Kind(Struct, frozen=True):
    """What becomes of the events of one type."""

    keep: Keep | None = None
    """`None`: the newest is shown."""
    is_hint: bool = False
    """Something may have moved at the provider: who can read there reads before it believes."""
    is_payment: bool = False
    """It says how the payment stands, which decides whether an order is told at all."""
    is_change: bool = False
    """Where nobody can read, it is a change of the order, made at the provider."""
    words: tuple[str, Any] | None = None
    """The member that repeats the provider's words, which may be personal, and what stands for none."""
    is_personal: bool = False
    """All of it may be."""
    unkept: str = ""
    """A member that goes no further than the event."""


def _newest(known: Mapping[str, tuple[Moment, Packed]], name: str, moment: Moment, data: Data) -> Members:
    old = known.get(name)
    return {} if old is not None and old[0] > moment else {"said": {**known, name: (moment, pack(data))}}


def _payment(facts: ProviderFacts, event: OrderEvent, moment: Moment) -> Members:
    data = event.data
    assert isinstance(data, p.PaymentStateSaidData)
    if data.state == "under_evaluation":
        return _newest(facts.said, "evaluation", moment, data)
    state = APPROVED_UNLESS_REFUSED if data.state == "approved" and event.is_final else data.state
    old = facts.payments.get(state)
    return {} if old is not None and old > moment else {"payments": {**facts.payments, state: moment}}


def _delivery(facts: ProviderFacts, event: OrderEvent, moment: Moment) -> Members:
    data = event.data
    assert isinstance(data, p.DeliverySaidData)
    said = facts.said | _newest(facts.said, "delivery", moment, data).get("said", {})
    if data.state == "second_attempt":
        said |= _newest(said, "second_attempt", moment, data).get("said", {})
    return {"said": said}


def _cancelled(facts: ProviderFacts, event: OrderEvent, moment: Moment) -> Members:
    changed = _newest(facts.said, "cancelled", moment, event.data)
    if event.is_final and (facts.cancelled is None or moment > facts.cancelled):
        changed["cancelled"] = moment
    return changed


def _disbursed(facts: ProviderFacts, event: OrderEvent, _moment: Moment) -> Members:
    data = event.data
    assert isinstance(data, p.DisbursedData)
    if event.uid in facts.disbursed:
        return {}  # seen so long ago that its id alone is not remembered any more
    maximum_minor = None if data.maximum_minor is UNSET else data.maximum_minor
    line = Disbursement(data.issued_on.isoformat(), data.amount_minor, maximum_minor)
    kept = {**facts.disbursed, event.uid: line}
    before_minor = facts.disbursed_before_minor
    if len(kept) > DISBURSED_MAX:
        oldest = min(kept, key=lambda uid: (kept[uid].issued_on, uid))
        before_minor += kept.pop(oldest).amount_minor
    return {"disbursed": kept, "disbursed_before_minor": before_minor}


KINDS: Mapping[type[Data], Kind] = {
    p.PaymentStateSaidData: Kind(_payment, is_payment=True),
    p.TransactionData: Kind(is_hint=True, words=("error", UNSET)),
    p.UpsellData: Kind(is_hint=True),
    p.DeliverySaidData: Kind(_delivery, is_hint=True),
    p.CancelledThereData: Kind(_cancelled, is_hint=True, is_change=True),
    p.CancelAskedData: Kind(),
    p.RiskData: Kind(),
    p.DisbursedData: Kind(_disbursed),
    p.ShippingData: Kind(words=("error", UNSET), unkept="payload"),
    p.CardSavedData: Kind(is_personal=True),
    p.UnmappedData: Kind(words=("word", "")),
}
"""By the type of their `data`: the one place for all that is special about a type. `schemas.views.ProviderView` has a
member for each that is shown."""

TYPES: Mapping[type[Data], str] = {data_of(event): event_type(event) for event in PROVIDER_TYPES}
"""Their CloudEvents types."""
NAMES: Mapping[type[Data], str] = {data: kind.removeprefix("provider.") for data, kind in TYPES.items()}
"""The same after `provider.`, by which they are kept and shown."""

assert KINDS.keys() == TYPES.keys()


def take(facts: ProviderFacts | None, event: OrderEvent, position: int) -> ProviderFacts:
    """What is kept once this was said, at `position` (the record's offset) in its partition."""
    data = event.data
    assert isinstance(data, p.ProviderData)
    facts = ProviderFacts() if facts is None else facts
    moment = (event.time_us, position)
    keep = KINDS[type(data)].keep
    if keep is None:
        changed = _newest(facts.said, NAMES[type(data)], moment, as_kept(data))
    else:
        changed = keep(facts, event, moment)
    if data.provider_order is not UNSET and (facts.order is None or moment > facts.order[0]):
        changed["order"] = (moment, data.provider_order)
    return replace(facts, **changed) if changed else facts


def found_cancelled(facts: ProviderFacts | None, at_us: int) -> ProviderFacts:
    """What is kept once reading there has shown that the order was cancelled. It counts from then on."""
    return replace(ProviderFacts() if facts is None else facts, cancelled=(at_us, 0))


def names_order_anew(facts: Facts, event: OrderEvent) -> bool:
    """Whether an event names the order as nobody has named it yet: what is there under that name is not known."""
    data = event.data
    if not isinstance(data, p.ProviderData) or data.provider_order is UNSET:
        return False
    known = facts.provider
    if known is not None and known.order is not None:
        moment, name = known.order
        return name != data.provider_order and moment[0] <= event.time_us
    references = None
    if "references" in facts.details:
        references = unpack_details({"references": facts.details["references"][1]}).references
    return references is None or references.provider != data.provider_order


def agrees_anew(data: Data) -> bool:
    """Whether a provider says that it takes a word now that it would not take before: there may be one."""
    return isinstance(data, p.DeliverySaidData) and data.state == "second_attempt"


def as_kept(data: Data) -> Data:
    """The same without what goes no further."""
    unkept = KINDS[type(data)].unkept
    return replace(data, **{unkept: UNSET}) if unkept else data


def as_shared(data: Data) -> Data | None:
    """The same without what may be personal; `None`: all of it may be."""
    kind = KINDS[type(data)]
    if kind.is_personal:
        return None
    return data if kind.words is None else replace(data, **dict([kind.words]))


def without_words(facts: ProviderFacts) -> ProviderFacts:
    """The same without what a provider says of errors: it may repeat what is being removed from the order."""
    said = dict(facts.said)
    for data, name in _PERSONAL.items():
        if name not in said:
            continue
        moment, packed = said[name]
        shared = as_shared(msgpack.decode(packed, type=data))
        if shared is None:
            del said[name]
        else:
            said[name] = (moment, pack(shared))
    return replace(facts, said=said)


def view_without_words(view: ProviderView) -> ProviderView:
    """The same without what may be personal."""
    changed: dict[str, Said | None] = {}
    for data, name in _PERSONAL.items():
        said: Said | None = getattr(view, name)
        words = KINDS[data].words
        changed[name] = (
            None if said is None or words is None else {key: value for key, value in said.items() if key != words[0]}
        )
    return replace(view, **changed)


_PERSONAL = {data: NAMES[data] for data, kind in KINDS.items() if kind.words is not None or kind.is_personal}
