"""Regenerates `schemas/json/` from the types: JSON Schemas, an AsyncAPI document, and the reference of the events.

    python -m schemas.generate            writes what differs
    python -m schemas.generate --check    writes nothing; exit 1 when something differs

The result depends on the sources alone. A rule across members, which no schema can hold, stands in the docstrings.
"""

import argparse
import ast
import json
import sys
from pathlib import Path
from typing import Any, cast

import msgspec

from schemas import (
    commands,
    console,
    envelope,
    events,
    history,
    operator_events,
    provider_events,
    reconciliation,
    reference,
    results,
    views,
)
from schemas.base import PUBLISHED
from schemas.envelope import Envelope
from schemas.events import event_type
from schemas.examples import RESULTS, example_event

FOLDER = Path(__file__).parent / "json"
CONTRACT_VERSION = "1.1.0"
"""Of the input contract: a change of its names or meanings needs a new one."""

_VIEWS: tuple[type[msgspec.Struct], ...] = (views.OrderView, views.StatusView)
_RECONCILED: dict[str, type[msgspec.Struct]] = {
    "order": reconciliation.ComparedOrder,
    "summary": reconciliation.Reconciliation,
}
"""The lines of `cartsync reconcile --json`, by their `type`."""
_DOCUMENTED = (
    commands,
    console,
    envelope,
    events,
    history,
    provider_events,
    operator_events,
    reconciliation,
    results,
    views,
)
_FACTS = [event for event in events.EVENT_TYPES if event in events.PROVIDER_TYPES]
_RESULT_KEY = "The subject of the order, or the name of the account."
_DIALECT = "https://json-schema.org/draft/2020-12/schema"

Schema = dict[str, Any]
MemberDocs = dict[tuple[str, str], str]
"""By (class, member): the docstring below the member."""


def documents() -> dict[str, str]:
    """The text of every file of `schemas/json/`, by its name."""
    docs = {name: text for module in _DOCUMENTED for name, text in member_docs(module).items()}
    schemas = {event_type(event): _event_schema(event, docs) for event in events.EVENT_TYPES}
    schemas |= {event_type(result): _result_schema(result, docs) for result in results.RESULT_TYPES}
    schemas |= {f"view.{_view_name(view)}": _schema(view, docs) for view in _VIEWS}
    schemas |= {f"reconcile.{name}": _schema(line, docs) for name, line in _RECONCILED.items()}
    schemas |= {f"command.{name}": _schema(line, docs) for name, line in commands.PRINTED.items()}
    files = {f"{name}.json": _json({"$schema": _DIALECT, "$id": f"{name}.json"} | schemas[name]) for name in schemas}
    files["asyncapi.json"] = _json(_async_api(docs))
    files["EVENTS.md"] = reference.page(docs, CONTRACT_VERSION)
    files["RESULTS.md"] = reference.results_page(docs)
    return files


def _view_name(view: type[msgspec.Struct]) -> str:
    return view.__name__.removesuffix("View").lower()


def _json(document: Schema) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


# --- JSON Schema -----------------------------------------------------------------------------------------------


def member_docs(module: Any) -> MemberDocs:
    """The docstrings of members in a module's classes; Python itself does not keep them."""
    docs: MemberDocs = {}
    for node in ast.parse(Path(module.__file__).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef):
            for member, below in zip(node.body, node.body[1:], strict=False):
                match member, below:
                    case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                        docs[node.name, name] = reference.one_line(text)
    return docs


def _components(types: tuple[type[msgspec.Struct], ...], docs: MemberDocs, place: str) -> dict[str, Schema]:
    """The schemas of all objects in these types, their members described."""
    _, components = msgspec.json.schema_components(types, ref_template=f"#/{place}/{{name}}")
    for struct in reference.structs_in(list(types)):
        components[struct.__name__]["description"] = reference.one_line(struct.__doc__)
        for member in msgspec.structs.fields(struct):
            text = reference.doc_of(struct, member.name, docs)
            if text:
                components[struct.__name__]["properties"][member.encode_name]["description"] = text
    return cast(dict[str, Schema], _published(components))


def _published(node: Any) -> Any:
    """The schema with patterns that others than Python take, too."""
    if isinstance(node, list):
        return [_published(each) for each in node]
    if not isinstance(node, dict):
        return node
    node = {name: _published(each) for name, each in node.items()}
    if node.get("pattern") in PUBLISHED:
        node["pattern"] = PUBLISHED[node["pattern"]]
    return node


def _schema(struct: type[msgspec.Struct], docs: MemberDocs) -> Schema:
    components = _components((struct,), docs, "$defs")
    root = components.pop(struct.__name__)
    return root | {"$defs": components}


def _event_schema(event: type[Envelope], docs: MemberDocs) -> Schema:
    return _schema(event, docs) | {"examples": [example_event(event_type(event))]}


def _result_schema(result: type[results.Attributes], docs: MemberDocs) -> Schema:
    return _schema(result, docs) | {"examples": [RESULTS[event_type(result)]]}


# --- AsyncAPI ----------------------------------------------------------------------------------------------------


def _async_api(docs: MemberDocs) -> Schema:
    names = [event_type(event) for event in events.EVENT_TYPES]
    told = [*map(event_type, results.RESULT_TYPES), *(f"result.{event_type(event)}" for event in _FACTS)]
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "cartsync",
            "version": CONTRACT_VERSION,
            "description": "Order-lifecycle events that cartsync reads, and results that it writes. EVENTS.md and "
            "RESULTS.md next to this file are for people.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/cloudevents+json",
        "channels": {
            "orderEvents": {
                "address": "orders.events",
                "description": "What a shop writes; the name is a setting. One event per record.",
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in names},
            },
            "deadLetters": {
                "address": "cartsync.dlq",
                "description": "Records that the contract refuses: key, value and headers untouched, or cut visibly "
                "where they would be too large. A setting, too.",
                "messages": {
                    "refused": {"$ref": "#/components/messages/refused"},
                    "handled": {"$ref": "#/components/messages/handled"},
                },
            },
            "results": {
                "address": "cartsync.results",
                "description": "What other systems are told; to be read with read_committed. A setting, too.",
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in told},
            },
        },
        "operations": {
            "readOrderEvents": {"action": "receive", "channel": {"$ref": "#/channels/orderEvents"}},
            "refuseRecord": {"action": "send", "channel": {"$ref": "#/channels/deadLetters"}},
            "tellResult": {"action": "send", "channel": {"$ref": "#/channels/results"}},
        },
        "components": {
            "messages": {
                **{event_type(event): _message(event) for event in events.EVENT_TYPES},
                "refused": _REFUSED,
                "handled": _HANDLED,
                **{event_type(result): _result_message(result) for result in results.RESULT_TYPES},
                **{f"result.{event_type(event)}": _fact_message(event) for event in _FACTS},
            },
            "schemas": _components((*events.EVENT_TYPES, *results.RESULT_TYPES), docs, "components/schemas"),
        },
    }


def _message(event: type[Envelope]) -> Schema:
    signed = {"headers": _MAC} if event in events.PROVIDER_TYPES | events.OPERATOR_TYPES else {}
    return signed | _kafka_message(event, reference.KEY_RULE, example_event(event_type(event)))


def _result_message(result: type[results.Attributes]) -> Schema:
    return _kafka_message(result, _RESULT_KEY, RESULTS[event_type(result)])


def _fact_message(event: type[Envelope]) -> Schema:
    """What a provider said, as others are told: without the members that may be personal."""
    return _kafka_message(event, _RESULT_KEY, reference.fact(event_type(event)))


def _kafka_message(event: type[msgspec.Struct], key: str, example: Any) -> Schema:
    name = event_type(event)
    return {
        "name": name,
        "title": event.__name__,
        "summary": reference.one_line(event.__doc__),
        "contentType": "application/cloudevents+json",
        "payload": {"$ref": f"#/components/schemas/{event.__name__}"},
        "bindings": {
            "kafka": {
                "key": {"type": "string", "minLength": 1, "description": key},
                "bindingVersion": "0.5.0",
            }
        },
        "examples": [{"payload": example}],
    }


_MAC: Schema = {
    "type": "object",
    "properties": {
        "x-cartsync-mac": {
            "type": "string",
            "pattern": "^[0-9a-f]{64}$",
            "description": "HMAC-SHA256 of key, 0x00, value under one of [callbacks] record_secrets.",
        }
    },
    "required": ["x-cartsync-mac"],
}

_REFUSED: Schema = {
    "name": "refused",
    "title": "Refused record",
    "summary": "The original record; the headers say why it was refused and where it stood.",
    "headers": {
        "type": "object",
        "properties": {
            "x-dlq-reason": {"enum": list(reference.REASONS)},
            **{
                f"x-dlq-{name}": {"type": "string", "description": text}
                for name, text in (reference.DLQ_HEADERS | reference.DLQ_HEADERS_AT_TIMES).items()
            },
        },
        "required": ["x-dlq-reason", *(f"x-dlq-{name}" for name in reference.DLQ_HEADERS)],
    },
    "payload": {"description": "The bytes of the original record."},
}


_HANDLED: Schema = {
    "name": "handled",
    "title": "Letter that was dealt with",
    "summary": "Somebody has dealt with a refused record of the same partition; readers of refused records skip it.",
    "headers": {
        "type": "object",
        "properties": {
            "x-dlq-handled": {"enum": ["replayed", "mended", "dismissed"]},
            **{f"x-dlq-{name}": {"type": "string", "description": text} for name, text in reference.MARKERS.items()},
        },
        "required": ["x-dlq-handled", "x-dlq-letter"],
    },
    "payload": {"description": "Empty."},
}


# --- the program ---------------------------------------------------------------------------------------------------


def stale(folder: Path) -> list[str]:
    """The names of files in the folder that are missing, differ, or should not be there."""
    wanted = documents()
    there = {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()} if folder.is_dir() else {}
    return sorted(name for name in wanted.keys() | there.keys() if wanted.get(name) != there.get(name))


def write(folder: Path) -> list[str]:
    """Makes the folder hold just the documents; the names of the files that changed."""
    changed = stale(folder)
    wanted = documents()
    folder.mkdir(exist_ok=True)
    for name in changed:
        if name in wanted:
            (folder / name).write_text(wanted[name], encoding="utf-8")
        else:
            (folder / name).unlink()
    return changed


def main(arguments: list[str], folder: Path = FOLDER) -> int:
    """The exit status: 1 when `--check` finds something stale."""
    parser = argparse.ArgumentParser(prog="python -m schemas.generate", description="regenerate schemas/json")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when something differs")
    check: bool = parser.parse_args(arguments).check
    found = stale(folder) if check else write(folder)
    for name in found:
        sys.stderr.write(f"schemas/json/{name}: {'stale; run `make schemas`' if check else 'written'}\n")
    return 1 if check and found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
