"""What is written to the state topic, and the values that messages are made of."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import events
from schemas.base import RuleError, parse_time_us
from schemas.events import DETAILS, Address, Attributes, Customer, Details, DetailsChangedData, Line
from schemas.facts import (
    FORMER_LINES,
    NIL,
    REGISTERS,
    SHIPMENTS,
    Confirmation,
    Content,
    FactMap,
    Facts,
    Fee,
    ItemCancellation,
    OrderDetails,
    ProviderFacts,
    Refund,
    Return,
    SealedFacts,
    Shipment,
    Stamp,
    Statement,
    Tracking,
    is_nil,
    open_facts,
    pack,
    seal_facts,
    unpack_details,
    unpack_lines,
    unpack_trackings,
)
from schemas.facts import Line as KeptLine
from schemas.state import (
    SCHEMA,
    Deployment,
    JobRecord,
    NextRecord,
    OrderHeader,
    OrderRecord,
    OwnerRecord,
    Parking,
    Taken,
    Target,
    TargetsRecord,
    decode_header,
    decode_job,
    decode_next,
    decode_order,
    decode_owner,
    decode_targets,
    decode_whole,
    encode,
)

# --- records -----------------------------------------------------------------------------------------------------------


def test_every_record_begins_with_the_schema_number() -> None:
    """A worker that meets a newer number can tell before it reads anything else."""
    for record in (OrderRecord(), NextRecord(SCHEMA, 1, 0, True, "v"), OwnerRecord(SCHEMA, "me", 5, "v")):
        assert msgspec.msgpack.decode(encode(record))[0] == SCHEMA


def test_records_survive_the_topic() -> None:
    """What is written is what is read."""
    following, owner = NextRecord(SCHEMA, 2**40, 3, False, "0.1.0"), OwnerRecord(SCHEMA, "worker-1", 2**41, "0.1.0")
    assert decode_next(encode(following)) == following
    assert decode_owner(encode(owner)) == owner
    ours = Deployment("c", "orders.events", "group", "prefix", 12, "e", "s")
    following = NextRecord(SCHEMA, 7, 0, True, "0.1.0", Taken(6, 2**41, 2**32 - 1), ours, hold_ms=30_000)
    assert decode_next(encode(following)) == following
    owner = OwnerRecord(SCHEMA, "worker-1", 2**41, "0.1.0", ours)
    assert decode_owner(encode(owner)) == owner
    order = OrderRecord(revision=2**53 - 1, park=Parking("why", b"d", 7, 1), reason="ñ", echo=True)
    assert decode_order(encode(order)) == order
    assert decode_header(encode(order)).park == order.park


def test_header_is_the_beginning_of_a_record() -> None:
    """The members that a restore reads stand first and in their order, whatever is added behind them."""
    header, record = msgspec.structs.fields(OrderHeader), msgspec.structs.fields(OrderRecord)
    assert [field.name for field in record[: len(header)]] == [field.name for field in header]


def test_facts_are_sealed_member_by_member() -> None:
    """Both forms of the facts have the same members; all but two are sealed by a register of their own."""
    assert SealedFacts.__struct_fields__ == Facts.__struct_fields__
    assert {*Facts.__struct_fields__} - REGISTERS.keys() == {"seen", "content_total_max_minor"}
    assert open_facts(SealedFacts()) == OrderRecord().facts == Facts()
    assert seal_facts(Facts()) == SealedFacts()


MAPS = sorted(name for name, register in REGISTERS.items() if isinstance(register, FactMap))
STAMPS = st.tuples(st.integers(-1, 3), st.integers(0, 2**60), st.integers(0, 2**40))


@given(st.sampled_from(MAPS), st.lists(st.tuples(st.text(max_size=3), STAMPS), max_size=40))
def test_fact_goes_into_its_map_unless_a_newer_one_is_there(name: str, told: list[tuple[str, Stamp]]) -> None:
    """Put one by one into the sealed map, facts end as in a dict; sealed again, that gives the very same bytes."""
    register: FactMap[Any] = REGISTERS[name]  # type: ignore[assignment]
    sealed, expected = b"", dict[str, Any]()
    for key, stamp in told:
        fact = FACTS[name](stamp)
        if key not in expected or _stamp_of(expected[key]) <= stamp:
            expected[key] = fact
        sealed = register.put(sealed, key, fact)
        assert register.open(sealed) == expected
        assert register.seal(expected) == sealed


FACTS: dict[str, Callable[[Stamp], Any]] = {
    "shipments": lambda stamp: Shipment(stamp, [("1", 2)], "2026-03-05T10:00:00Z", b"t"),
    "deliveries": lambda stamp: (stamp, "2026-03-05T10:00:00Z"),
    "returns": lambda stamp: Return(stamp, [("1", 2)], "any"),
    "item_cancellations": lambda stamp: ItemCancellation(stamp, None, "why"),
    "refunds": lambda stamp: Refund(stamp, 5),
    "fees": lambda stamp: Fee(stamp, 5, "ñ"),
}


def _stamp_of(fact: Any) -> Stamp:
    stamp: Stamp = fact[0] if isinstance(fact, tuple) else fact.stamp
    return stamp


def test_key_that_stands_elsewhere_in_the_map_is_still_a_new_one() -> None:
    """The bytes of a key may be within another fact: in its texts, its units, its tracking."""
    first = Shipment((1, 2, 3), [("s2", 2)], None, pack("s2"))
    other = Shipment((1, 2, 4), None)
    sealed = SHIPMENTS.put(SHIPMENTS.put(b"", "s1", first), "s2", other)
    assert SHIPMENTS.open(sealed) == {"s1": first, "s2": other}


def test_damaged_facts_are_found_when_they_are_opened() -> None:
    """A record is read without a look into its facts; who wants to know whether it is whole says so."""
    value = encode(OrderRecord(revision=7, sealed=SealedFacts(shipments=b"\xc1")))
    assert decode_order(value).revision == 7
    with pytest.raises(msgspec.MsgspecError):
        decode_whole(value)
    with pytest.raises(msgspec.MsgspecError):
        decode_order(encode(OrderRecord(sealed=7)))  # type: ignore[arg-type]
    facts = Facts(
        confirmation=Confirmation((1, 2, 3), "EUR", 1, NIL, {}, b""),
        shipments={"s1": Shipment((1, 2, 3), []), "s2": Shipment((1, 2, 4), [], None, pack([]))},
        deliveries={"s1": ((1, 2, 3), "t")},
    )
    whole = OrderRecord(sealed=seal_facts(facts))
    assert decode_whole(encode(whole)) == whole


JUNK = b"hello"
PACKED = {
    "lines of the content": Facts(content=Content((1, 2, 3), None, "EUR", 1, JUNK)),
    "lines of the confirmation": Facts(confirmation=Confirmation((1, 2, 3), "EUR", 1, JUNK, {}, b"")),
    "a statement": Facts(statements=[Statement((1, 2, 3), None, "EUR", pack([]), JUNK, None)]),
    "a tracking": Facts(shipments={"s1": Shipment((1, 2, 3), [], None, JUNK)}),
    "a detail": Facts(details={"customer": ((1, 2, 3), JUNK)}),
    "what a shop observed": Facts(observed=((1, 2, 3), b"\xa1\xff")),
    "what a provider said": Facts(provider=ProviderFacts(said={"risk": ((1, 2), b"\xa1\xff")})),
}


@pytest.mark.parametrize("kind", PACKED)
def test_damage_of_what_facts_keep_packed_is_found(kind: str) -> None:
    """Whoever looks for the damaged record of a partition has to find it, however deep the damage is."""
    value = encode(OrderRecord(sealed=seal_facts(PACKED[kind])))
    assert decode_order(value).facts is not None
    with pytest.raises(msgspec.MsgspecError):
        decode_whole(value)


def test_text_that_is_not_utf8_is_damage_like_any_other() -> None:
    """msgspec raises an error of Python's own for it, which nobody who expects damage would catch."""
    value = encode(OrderRecord(trace="\u00e9")).replace("\u00e9".encode(), b"\xff\xfe")
    with pytest.raises(msgspec.DecodeError, match="not UTF-8"):
        decode_order(value)
    sealed = seal_facts(Facts(former_lines={"\u00e9": True}))
    sealed.former_lines = sealed.former_lines.replace("\u00e9".encode(), b"\xff\xfe")
    with pytest.raises(msgspec.DecodeError, match="not UTF-8"):
        _ = decode_order(encode(OrderRecord(sealed=sealed))).facts
    with pytest.raises(msgspec.DecodeError, match="not UTF-8"):
        FORMER_LINES.open(sealed.former_lines)


@pytest.mark.parametrize("packed", [b"\xdf\x00", b"hello world"], ids=["cut short", "no map"])
def test_nothing_is_put_into_a_map_that_is_none(packed: bytes) -> None:
    """The damage is found before anything is committed onto it."""
    with pytest.raises(msgspec.MsgspecError):
        SHIPMENTS.put(packed, "s1", Shipment((1, 2, 3), []))


def test_map_with_another_header_is_made_ours() -> None:
    """MessagePack has shorter ones for short maps: a fact behind such a one must not be lost."""
    known = Shipment((1, 2, 3), [("a", 1)])
    sealed = SHIPMENTS.put(pack({"s1": known}), "s2", known)
    assert SHIPMENTS.open(sealed) == {"s1": known, "s2": known}


TARGETS = TargetsRecord(SCHEMA, {"acme": Target("sequra", "https://provider.example", "acme")})
RECORDS = [
    OrderHeader(),
    OrderRecord(),
    NextRecord(SCHEMA, 1, 0, True, "v"),
    OwnerRecord(SCHEMA, "me", 5, "v"),
    TARGETS,
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_reader_ignores_what_a_newer_writer_added(record: msgspec.Struct) -> None:
    """Members are only ever added at the end: an older reader leaves them alone."""
    longer = [*msgspec.msgpack.decode(msgspec.msgpack.encode(record)), "new"]
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(longer), type=type(record)) == record


def test_targets_are_read_back() -> None:
    """Whom each account told is read as it was written, and said in words."""
    found = decode_targets(encode(TARGETS))
    assert found == TARGETS
    assert str(found.targets["acme"]) == "sequra merchant acme at https://provider.example"


def test_job() -> None:
    """What a job has done, and what the adapter keeps of it."""
    record = JobRecord(SCHEMA, 1_772_323_200_000, b"pages")
    assert decode_job(encode(record)) == record
    assert decode_job(msgspec.msgpack.encode([SCHEMA, 5])) == JobRecord(SCHEMA, 5)


def test_reader_fills_what_an_older_writer_did_not_know() -> None:
    """Missing members at the end have their defaults."""
    assert decode_order(msgspec.msgpack.encode([1, 7, 3])) == OrderRecord(1, revision=7, acked=3)
    following = decode_next(msgspec.msgpack.encode([1, 7, 0, True, "0.1.0"]))
    assert (following.taken, following.deployment) == (None, Deployment())
    assert decode_owner(msgspec.msgpack.encode([1, "me", 5, "0.1.0"])).deployment == Deployment()


def test_defaults_are_not_shared() -> None:
    """Two records never share their facts."""
    one, other = OrderRecord(), OrderRecord()
    one.sealed.shipments = b"s"
    assert other.sealed == SealedFacts()
    facts = other.facts
    facts.statements.append(None)  # type: ignore[arg-type]
    assert other.facts == Facts()


# --- what facts keep encoded ---------------------------------------------------------------------------------------------


def test_nil_stands_for_nothing() -> None:
    """Only the encoded null is it, not an empty list or an empty text."""
    assert is_nil(NIL)
    assert is_nil(pack(None))
    others: list[object] = [[], "", False, 0, {}]
    assert not any(is_nil(pack(value)) for value in others)


def test_lines_and_trackings_are_kept() -> None:
    """What is packed is unpacked as it was."""
    lines = [
        KeptLine("1", "product", "A", "A", 1, 5, 5, None, True, Attributes(category="c")),
        KeptLine("invoice_fee", "invoice_fee", None, None, 0, 0, 5),
        KeptLine("D", "discount", "D", "D", 0, 0, -5, ["1"]),
    ]
    assert unpack_lines(pack(lines)) == lines
    told = [events.Tracking("T", "postal", carrier="UPS", delivered_at="2026-03-05T10:00:00Z")]
    assert unpack_trackings(pack(told)) == [Tracking("T", "postal", "UPS", delivered_at="2026-03-05T10:00:00Z")]


def test_trackings_have_the_same_members_everywhere() -> None:
    """What is kept of a tracking is all that the contract knows of it."""
    assert Tracking.__struct_fields__ == events.Tracking.__struct_fields__
    assert Tracking.__struct_defaults__ == events.Tracking.__struct_defaults__


def test_details_are_put_together() -> None:
    """Each member is kept on its own; those not known and those removed are nothing."""
    assert unpack_details({}) == OrderDetails()
    kept = {"customer": pack(Customer(email="a@b.c")), "gift": pack(False), "delivery_address": NIL}
    assert unpack_details(kept) == OrderDetails(customer=Customer(email="a@b.c"), gift=False)


def test_details_have_the_same_members_everywhere() -> None:
    """The contract's details, their changes and what is kept of them agree on the members."""
    for struct in (Details, DetailsChangedData, OrderDetails):
        assert struct.__struct_fields__ == DETAILS
    assert Address() == Address()


@pytest.mark.parametrize("kind", [Content, Statement])
def test_rank_puts_the_version_before_the_stamp(kind: type[Content] | type[Statement]) -> None:
    """A missing version is lowest, below any number; equal versions go by stamp."""

    def rank(version: int | None, stamp: int) -> tuple[bool, int, tuple[int, int, int]]:
        if kind is Content:
            return Content((0, stamp, 0), version, "EUR", 0, NIL).rank
        return Statement((0, stamp, 0), version, "EUR", NIL, NIL).rank

    ranks = [rank(None, 1), rank(None, 2), rank(-5, 0), rank(0, 0), rank(0, 1), rank(7, 0)]
    assert ranks == sorted(ranks)
    assert len(set(ranks)) == len(ranks)


# --- values --------------------------------------------------------------------------------------------------------------


@given(st.datetimes(timezones=st.timezones()))
def test_parse_time_agrees_with_the_calendar(moment: object) -> None:
    """Microseconds since 1970 UTC of any moment, exactly, in upper and in lower case."""
    assert isinstance(moment, datetime)
    offset = moment.utcoffset()
    if offset is None or offset % timedelta(minutes=1):
        return
    text = moment.isoformat(timespec="microseconds")
    exact = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    assert parse_time_us(text) == parse_time_us(text.lower()) == exact


@pytest.mark.parametrize("text", ["2026-02-30T00:00:00Z", "2026-01-01T25:00:00Z", "0000-01-01T00:00:00Z"])
def test_moment_that_does_not_exist(text: str) -> None:
    """A text of the right form whose day or hour does not exist is blamed on its member."""
    with pytest.raises(RuleError) as raised:
        parse_time_us(text)
    assert raised.value.member == ""
    with pytest.raises(RuleError) as blamed:
        events.ItemsDeliveredData(shipment_id="s", delivered_at=text)
    assert (blamed.value.member, blamed.value.expected) == (".delivered_at", raised.value.expected)
    assert str(blamed.value).startswith("expected an RFC 3339 time")


CUT = {
    "2026-01-01T00:00:00.123456789Z": "2026-01-01T00:00:00.123456Z",
    "2026-01-01T00:00:00.1234567+01:30": "2026-01-01T00:00:00.123456+01:30",
    "2026-01-01T00:00:00.123456+01:30": "2026-01-01T00:00:00.123456+01:30",
    "2026-01-01T00:00:00.1+00:00": "2026-01-01T00:00:00.1+00:00",
    "2026-01-01T00:00:00Z": "2026-01-01T00:00:00Z",
}


@pytest.mark.parametrize("text", CUT)
def test_times_are_cut_to_microseconds(text: str) -> None:
    """What is kept of a time has at most six fraction digits, and names the moment that is reckoned with."""
    kept = events.ItemsDeliveredData(shipment_id="s", delivered_at=text).delivered_at
    assert kept == CUT[text]
    assert parse_time_us(kept) == parse_time_us(text)


def test_unset_time_passes() -> None:
    """A time that was not given breaks no rule."""
    assert events.Tracking(reference="T", type="pickup_point").delivered_at is msgspec.UNSET


def test_id_of_a_line() -> None:
    """`line_id`, by default the reference, by default `invoice_fee`."""
    assert Line(1, "invoice_fee").id == "invoice_fee"
    assert Line(1, "handling", reference="R", name="N").id == "R"
    assert Line(1, "handling", line_id="L", reference="R", name="N").id == "L"
