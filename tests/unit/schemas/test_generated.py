"""The generated schemas and the reference: fresh, valid, and of one mind with the decoder."""

import json
import random
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, FormatChecker
from msgspec.structs import replace

from schemas import events, generate, reference, results
from schemas.base import time_text
from schemas.commands import PRINTED
from schemas.envelope import Envelope
from schemas.examples import EXAMPLES, RESULTS, example_event
from schemas.facts import Disbursement, ProviderFacts, pack
from schemas.state import OrderRecord
from schemas.views import AccountView, ItemView, OrderView, PartitionView, ProviderView, Said, StatusView
from tests.shops.events import START_MS, TRUST, EventSpec, envelope, mac_of
from tests.unit.core.samples import SAMPLES
from tests.unit.core.test_intake_robustness import mutated
from tests.unit.core.test_intake_values import TAKEN
from worker.core.intake import decode
from worker.core.order import Shown
from worker.core.results import Found, Reporting, tell
from worker.errors import MalformedEventError

FILES = {path.name: path for path in generate.FOLDER.iterdir()}
TYPES = [events.event_type(event) for event in events.EVENT_TYPES]


def validator(name: str) -> Draft202012Validator:
    """A validator that shares no code with ours, of a checked-in schema."""
    schema = json.loads(FILES[f"{name}.json"].read_text(encoding="utf-8"))
    return Draft202012Validator(schema, format_checker=FormatChecker())


VALIDATORS = {kind: validator(kind) for kind in TYPES}


def is_taken(body: Any) -> bool:
    """Whether the door takes this event, some days after it was written."""
    value = msgspec.json.encode(body)
    try:
        return decode(b"k", value, mac_of(body, value), START_MS + 10**9, trust=TRUST) is not None
    except MalformedEventError:
        return False


# --- fresh -----------------------------------------------------------------------------------------------------------


def test_checked_in_files_are_fresh() -> None:
    """Nobody changed a type without `make schemas`, nor a file by hand."""
    assert generate.stale(generate.FOLDER) == []


def test_generation_is_deterministic() -> None:
    """The same sources give the same files, byte by byte."""
    assert generate.documents() == generate.documents()


def test_files_are_named_by_their_types() -> None:
    """One schema per event type, those of the operations port and of `reconcile`, AsyncAPI, and the pages."""
    expected = {f"{kind}.json" for kind in (*TYPES, *RESULTS)} | {"view.order.json", "view.status.json"}
    expected |= {"reconcile.order.json", "reconcile.summary.json"}
    expected |= {f"command.{name}.json" for name in PRINTED}
    assert set(FILES) == expected | {"asyncapi.json", "EVENTS.md", "RESULTS.md"}


def test_program_writes_what_differs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It writes what is missing or stale and removes what should not be there; `--check` only tells."""
    folder = tmp_path / "json"
    assert generate.main(["--check"], folder) == 1
    assert not folder.exists()
    assert generate.main([], folder) == 0
    assert generate.main(["--check"], folder) == 0
    capsys.readouterr()
    (folder / "order.cancelled.json").write_text("{}", encoding="utf-8")
    (folder / "old.json").write_text("{}", encoding="utf-8")
    assert generate.main(["--check"], folder) == 1
    told = capsys.readouterr().err.splitlines()
    assert told == [
        "schemas/json/old.json: stale; run `make schemas`",
        "schemas/json/order.cancelled.json: stale; run `make schemas`",
    ]
    assert generate.main([], folder) == 0
    assert capsys.readouterr().err.count("written") == 2
    assert generate.stale(folder) == []
    assert not (folder / "old.json").exists()


# --- valid, and of one mind with the decoder ---------------------------------------------------------------------------


STARTS = ("order.", "provider.", "view.", "cartsync.", "command.")


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith(STARTS)])
def test_schemas_are_valid(name: str) -> None:
    """Each file is a JSON Schema of the dialect that it names, without dangling references."""
    schema = json.loads(FILES[name].read_text(encoding="utf-8"))
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    Draft202012Validator.check_schema(schema)
    assert references(schema) == {f"#/$defs/{each}" for each in schema["$defs"]}


def patterns(node: Any) -> set[str]:
    """Every `pattern` in a document."""
    if isinstance(node, dict):
        own = {node["pattern"]} if isinstance(node.get("pattern"), str) else set()
        return own.union(*map(patterns, node.values()))
    return set().union(*map(patterns, node)) if isinstance(node, list) else set()


PATTERNS = sorted(
    set().union(*(patterns(json.loads(path.read_text())) for path in FILES.values() if path.suffix == ".json"))
)
PERL_ONLY = re.compile(r"\(\?|\\[1-9AZzGKRXCpPbBhHvVNkuxQE]|[*+?}][+]")
"""Groups with a question mark (look-around, atomic, named), back-references, anchors of one dialect, possessive counts."""


def test_patterns_are_of_no_dialect() -> None:
    """RE2 (Go, Rust), Python and JavaScript take each pattern and mean the same: JSON Schema asks for such a subset."""
    assert len(PATTERNS) > 5
    assert [pattern for pattern in PATTERNS if PERL_ONLY.search(pattern)] == []
    for pattern in PATTERNS:
        assert all(int(count) <= 1_000 for count in re.findall(r"[{,]([0-9]+)", pattern)), "RE2 counts no further"
        re.compile(pattern)


VALUES = {
    "subject": ["acme/1", "a/b/..c", "a/" + "😀" * 200, "./1", "acme/.", "acme/../x", "acme/x/..", "acme/1\n", "acme"],
    "time": ["2026-03-01T00:00:00.123456789Z", "2026-03-01T00:00:00.1234567890Z", "2026-03-01T00:00:00", "x"],
    "sequence": ["0", "9" * 18, "1" * 19, "1\n", "٣"],
    "traceparent": ["01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more", "00-x", ""],
    "source": ["/shops", ""],
}
NODE = shutil.which("node")


@pytest.mark.skipif(NODE is None, reason="there is no Node.js")
def test_patterns_in_javascript() -> None:
    """Node compiles each pattern, with and without its flag for Unicode, and judges attributes as the door does."""
    assert NODE is not None  # says the mark
    attributes = json.loads(FILES["order.cancelled.json"].read_text(encoding="utf-8"))["properties"]
    rules = {
        name: [attributes[name].get("pattern", ""), attributes[name].get("not", {}).get("pattern", "(?!)")]
        if "anyOf" not in attributes[name]
        else [next(each["pattern"] for each in attributes[name]["anyOf"] if "pattern" in each), "(?!)"]
        for name in VALUES
        if name != "source"
    }
    program = """
    const [patterns, rules, values] = JSON.parse(require("fs").readFileSync(0));
    for (const each of patterns) { new RegExp(each); new RegExp(each, "u"); }
    const judged = {};
    for (const [name, [good, bad]] of Object.entries(rules))
      judged[name] = values[name].map(text => new RegExp(good, "u").test(text) && !new RegExp(bad, "u").test(text));
    console.log(JSON.stringify(judged));
    """
    asked = json.dumps([PATTERNS, rules, VALUES])
    ended = subprocess.run([NODE, "-e", program], input=asked, capture_output=True, text=True, timeout=60, check=False)
    assert ended.stderr == ""
    body = envelope(EventSpec("order.cancelled", {}))
    for name, judged in json.loads(ended.stdout).items():
        assert judged == [is_taken(body | {name: text}) for text in VALUES[name]], name


def references(node: Any) -> set[str]:
    """Every `$ref` in a document."""
    if isinstance(node, dict):
        own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
        return own.union(*map(references, node.values()))
    return set().union(*map(references, node)) if isinstance(node, list) else set()


@pytest.mark.parametrize("told", [*SAMPLES, *TAKEN], ids=lambda told: told.type)
def test_schema_accepts_what_the_decoder_takes(told: EventSpec) -> None:
    """Good events, at their bounds too, are valid."""
    VALIDATORS[told.type].validate(envelope(told))


@pytest.mark.parametrize("kind", TYPES)
def test_examples_are_good_events(kind: str) -> None:
    """The examples of the reference are valid, are taken, and stand in the schema."""
    example = example_event(kind)
    VALIDATORS[kind].validate(example)
    assert is_taken(example)
    assert json.loads(FILES[f"{kind}.json"].read_text(encoding="utf-8"))["examples"] == [example]
    assert set(EXAMPLES) == set(TYPES)


@settings(max_examples=1500, deadline=None)
@given(st.sampled_from(SAMPLES), st.integers(0, 2**32))
def test_decoder_refuses_what_the_schema_refuses(told: EventSpec, seed: int) -> None:
    """Whatever changes an event so that the schema refuses it is refused by the door, too."""
    body = mutated(envelope(told), random.Random(seed))
    if isinstance(body, dict) and body.get("type") == told.type and not VALIDATORS[told.type].is_valid(body):
        assert not is_taken(body)


MEMBER_RULES: list[tuple[str, dict[str, Any]]] = [
    ("order.refunded", {"refund_id": "f", "amount_minor": 0}),
    ("order.refunded", {"refund_id": "f", "amount_minor": 10**12 + 1}),
    ("order.refunded", {"refund_id": "", "amount_minor": 1}),
    ("order.refunded", {"refund_id": "x" * 1001, "amount_minor": 1}),
    ("order.refunded", {"refund_id": "f"}),
    ("order.refunded", {"refund_id": "f", "amount_minor": 1, "amount": 1}),
    ("order.refunded", {"refund_id": "f", "amount_minor": True}),
    ("order.cancelled", {"by": "customer"}),
    ("order.payment_state_changed", {"payment_state": None}),
    ("order.cart_updated", {"currency": "eur", "lines": EXAMPLES["order.cart_updated"]["lines"]}),
    ("order.cart_updated", {"currency": "EUR", "lines": []}),
    ("order.items_delivered", {"shipment_id": "s", "delivered_at": "2026-03-01T00:00:00"}),
    ("order.details_changed", {"customer": {"date_of_birth": "29.02.1980"}}),
    ("order.details_changed", {"customer": {"email": None}}),
    ("order.retracted", {"cancelled": False}),
    ("order.observed", EXAMPLES["order.observed"] | {"payment_method": "card"}),
    ("order.observed", EXAMPLES["order.observed"] | {"payment_method": "O/"}),
    ("order.observed", EXAMPLES["order.observed"] | {"device": "computers"}),
    ("order.observed", EXAMPLES["order.observed"] | {"country": "es"}),
    ("order.observed", EXAMPLES["order.observed"] | {"status": "paid"}),
    ("order.observed", EXAMPLES["order.observed"] | {"amount_minor": -1}),
    ("provider.payment_state", {"state": "confirmed"}),
    ("provider.transaction", EXAMPLES["provider.transaction"] | {"transaction_id": 454213}),
    ("provider.transaction", EXAMPLES["provider.transaction"] | {"status": "x" * 201}),
    ("provider.upsell", {"transaction_id": "1"}),
    ("provider.delivery", {"state": "lost"}),
    ("provider.cancelled", {}),
    ("provider.cancel_asked", {"by": "shopper"}),
    ("provider.risk", {"level": "low_risk", "provider_order": ""}),
    ("provider.disbursed", EXAMPLES["provider.disbursed"] | {"issued_on": "9 March"}),
    ("provider.shipping", {"provider": "Ingrid", "success": "yes"}),
    ("provider.card_saved", EXAMPLES["provider.card_saved"] | {"last4": "42424242"}),
    ("provider.card_saved", EXAMPLES["provider.card_saved"] | {"number": "4242"}),
    ("provider.unmapped", {"kind": "x", "word": "x" * 201}),
]


@pytest.mark.parametrize(("kind", "data"), MEMBER_RULES)
def test_schema_holds_the_rules_of_members(kind: str, data: dict[str, Any]) -> None:
    """Bounds, patterns, enumerations, required and unknown members are refused by both."""
    body = envelope(EventSpec(kind, data))
    assert not VALIDATORS[kind].is_valid(body)
    assert not is_taken(body)


@pytest.mark.parametrize("name", ["specversion", "id", "source", "time", "subject", "sequence", "traceparent", "data"])
@pytest.mark.parametrize("value", ["", 5, []])
def test_schema_holds_the_rules_of_attributes(name: str, value: Any) -> None:
    """So are wrong attributes."""
    body = envelope(EventSpec("order.cancelled", {})) | {name: value}
    assert not VALIDATORS["order.cancelled"].is_valid(body)
    assert not is_taken(body)


def test_views_fit_their_schemas() -> None:
    """What the operations port answers is valid."""
    item = ItemView("product", "A", None, 1, 100)
    order = OrderView("acme/1", "owed", "", "EUR", 100, 0, [item], [], 5, 3, 1.5, True, 0)
    said: Said = {"at": "2026-03-01T00:00:00Z", "amount_minor": 5, "success": True}
    paid = replace(order, provider=ProviderView("67890", risk=said), paid_minor=100, paid="paid")
    partition = PartitionView(0, "serving", "", 5, None, 1, 1, 0, 0, 2.5, 19.0)
    status = StatusView("0.1.0", True, [partition], [AccountView("acme", "sequra", "D", None, 0.0, 0, 0)])
    for name, view in (
        ("view.order", order),
        ("view.order", OrderView("acme/1", "unconfirmed", "")),
        ("view.order", paid),
        ("view.status", status),
    ):
        validator(name).validate(msgspec.to_builtins(view))
    assert not validator("view.order").is_valid(msgspec.to_builtins(order) | {"status": "lost"})


# --- AsyncAPI --------------------------------------------------------------------------------------------------------


def resolve(document: Any, pointer: str) -> Any:
    """What a local `$ref` names."""
    for part in pointer.removeprefix("#/").split("/"):
        document = document[part]
    return document


def test_async_api_hangs_together() -> None:
    """Every reference of the document leads somewhere, and each type is a message of the event channel."""
    document = json.loads(FILES["asyncapi.json"].read_text(encoding="utf-8"))
    assert document["asyncapi"] == "3.0.0"
    for pointer in references(document):
        assert resolve(document, pointer) is not None
    assert list(document["channels"]["orderEvents"]["messages"]) == TYPES
    assert list(document["channels"]["results"]["messages"])[: len(RESULTS)] == list(RESULTS)
    reasons = document["components"]["messages"]["refused"]["headers"]["properties"]["x-dlq-reason"]["enum"]
    assert reasons == list(reference.REASONS)
    assert list(document["channels"]["results"]["messages"])[len(RESULTS) :] == [
        f"result.{kind}" for kind in TYPES if kind.startswith("provider.")
    ]
    for kind in (*TYPES, *document["channels"]["results"]["messages"]):
        message = document["components"]["messages"][kind]
        payload = {"$ref": message["payload"]["$ref"], "components": document["components"]}
        Draft202012Validator(payload).validate(message["examples"][0]["payload"])


# --- results ---------------------------------------------------------------------------------------------------------


SAID = ProviderFacts(
    order=((1, 2), "67890"),
    said={"risk": ((5, 6), pack({"level": "high"})), "card_saved": ((7, 8), pack({"brand": "Visa", "last4": "4242"}))},
    disbursed={b"12345678": Disbursement("2026-03-09", 1300)},
)


@pytest.mark.parametrize("shown", [None, Shown("EUR", 100, -5)])
@pytest.mark.parametrize("reporting", [Reporting("/cartsync/a%20b"), Reporting("/cartsync/g", with_reasons=True)])
@pytest.mark.parametrize("facts", [None, SAID])
def test_results_fit_their_schema(shown: Shown | None, reporting: Reporting, facts: ProviderFacts | None) -> None:
    """What is written is valid, whatever is known of the order; a schema that takes anything would not do."""
    record = OrderRecord(revision=7, acked=5, trace="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    found = Found("parked", shown, facts, "422: no", unsupported=True)
    value = tell(record, "acme/ñ", found, reporting, time=time_text(START_MS * 1000), max_bytes=10_000)
    assert value is not None
    body = json.loads(value)
    judge = validator("cartsync.order_changed")
    judge.validate(body)
    assert not judge.is_valid(body | {"data": body["data"] | {"status": "lost"}})
    assert not judge.is_valid({name: body[name] for name in body if name != "sequence"})


@pytest.mark.parametrize("kind", RESULTS)
def test_examples_of_results_are_results(kind: str) -> None:
    """The examples of the page are valid, and what the types make of them again."""
    validator(kind).validate(RESULTS[kind])
    (result,) = [each for each in results.RESULT_TYPES if events.event_type(each) == kind]
    assert msgspec.to_builtins(msgspec.convert(RESULTS[kind], result)) == RESULTS[kind]


# --- the page --------------------------------------------------------------------------------------------------------

PAGE = FILES["EVENTS.md"].read_text(encoding="utf-8")


def members(kind: str) -> list[str]:
    """The members in the table below a heading of the page."""
    section = PAGE.split(f"\n### {kind}\n", 1)[1].split("\n### ", 1)[0].split("\n## ", 1)[0]
    return [row.split("`")[1] for row in section.splitlines() if row.startswith("| `")]


@pytest.mark.parametrize("event", events.EVENT_TYPES, ids=lambda event: event.__name__)
def test_page_has_every_member(event: type[Envelope]) -> None:
    """Each type has a section with all members of its data, the required ones first."""
    fields = msgspec.structs.fields(events.data_of(event))
    found = members(events.event_type(event))
    assert sorted(found) == sorted(field.encode_name for field in fields)
    needed = [field.encode_name for field in fields if field.required]
    assert found[: len(needed)] == needed


def test_links_of_the_page_lead_somewhere() -> None:
    """Every link within the page names a heading of it."""
    headings = {line.lstrip("# ").lower().replace(".", "") for line in PAGE.splitlines() if line.startswith("#")}
    links = {part.split(")")[0] for part in PAGE.split("](#")[1:]}
    assert links
    assert links <= headings


def test_page_says_what_members_mean() -> None:
    """Bounds, defaults, lists and docstrings arrive in the tables; tables have four columns."""
    for row in (
        "| `fee_minor` |  | an integer from 1 to 1000000000000 | What the shopper pays for the return; above 0. |",
        '| `by` |  | `"merchant"` or `"provider"` or `"shopper"`; default `"merchant"` | `provider`: made there, so it is not sent back. |',
        "| `lines` | yes | list of [Line](#line), at least one |  |",
        "| `customer` |  | [Customer](#customer) or null |  |",
    ):
        assert row in PAGE.splitlines()
    assert {row.count("|") for row in PAGE.splitlines() if row.startswith("| `")} == {5, 3}
