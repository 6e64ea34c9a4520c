"""`/api` and its description agree."""

import json
from pathlib import Path
from typing import Any

import aiohttp
import jsonschema
import pytest

from tests.unit.web.console.scene import NOW_MS, Scene, csrf, get_json, owed, parked, settled
from worker.web.console.auth import Loopback
from worker.web.console.server import Console


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """A broker with something of everything."""
    found = Scene(tmp_path)
    found.put("acme/A14", settled())
    found.put("acme/A15", parked())
    found.put("hats/1", owed(NOW_MS - 7_200_000))
    found.refuse(b'{"subject":"acme/A15"}', "$.id: expected a member")
    found.tell("acme/A15", 1, status="parked", revision=2, acked=0, currency="EUR", shipped_minor=1, unshipped_minor=2)
    return found


def check(description: dict[str, Any], schema: dict[str, Any], value: Any) -> None:
    """Holds a value against a schema of the description, by an independent validator."""
    whole = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "components": description["components"],
    }
    jsonschema.Draft202012Validator(whole).validate(value)


async def test_answers_are_as_described(scene: Scene) -> None:
    """Each GET of the description is answered with what it promises."""
    examples = {"{subject}": "acme%2FA15", "{partition}": "0", "{offset}": "0"}
    async with scene.open():
        headers = {"X-CSRF-Token": await csrf(scene.url)}
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.post(f"{scene.url}/api/release?status=parked") as response,
        ):
            action = await response.json()
        examples["{key}"] = action["key"]
        description = await get_json(f"{scene.url}/api/openapi.json")
        check(description, {"$ref": "#/components/schemas/ActionView"}, action)
        asked = 0
        for path, operations in description["paths"].items():
            if "get" not in operations:
                continue
            address = path
            for name, example in examples.items():
                address = address.replace(name, example)
            assert "{" not in address, path
            schema = operations["get"]["responses"]["200"]["content"]["application/json"]["schema"]
            check(description, schema, await get_json(scene.url + address))
            asked += 1
        assert asked >= 7
        check(description, {"$ref": "#/components/schemas/Problem"}, await get_json(f"{scene.url}/api/orders/x", 404))


async def test_every_route_is_described(scene: Scene) -> None:
    """What the server answers under /api is what the description names; parameters of paths are all declared."""
    async with scene.open() as answers:
        app = Console(answers, Loopback())._app()
        served = {
            (route.method, route.resource.canonical.replace("{name}", "{}"))
            for route in app.router.routes()
            if route.resource is not None and route.resource.canonical.startswith("/api/") and route.method != "HEAD"
        }
        description = await get_json(f"{scene.url}/api/openapi.json")
    named = set()
    for path, operations in description["paths"].items():
        for method, operation in operations.items():
            named.add((method.upper(), path.replace("{subject}", "{}").replace("{account}", "{}")))
            declared = {each["name"] for each in operation.get("parameters", ()) if each["in"] == "path"}
            assert declared == {part.strip("{}") for part in path.split("/") if part.startswith("{")}, path
    served.discard(("GET", "/api/openapi.json"))
    assert served == named


async def test_ids_of_operations(scene: Scene) -> None:
    """Generators of clients need one for each."""
    async with scene.open():
        description = await get_json(f"{scene.url}/api/openapi.json")
    ids = [each["operationId"] for operations in description["paths"].values() for each in operations.values()]
    assert len(set(ids)) == len(ids)
    json.dumps(description)


async def test_try_by_the_api(scene: Scene) -> None:
    """The body as it stands is tried."""
    async with scene.open():
        headers = {"X-CSRF-Token": await csrf(scene.url)}
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.post(f"{scene.url}/api/try", data=b'{"type":"x"}') as response,
        ):
            assert response.status == 200
            assert (await response.json())["updates"][0]["method"] == "PUT"
    assert scene.tried == ['{"type":"x"}']
