"""The documents of the API and of the events fit the last release, or a reason is given."""

import copy
import tomllib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest

from tests.rows import each_row
from tools.compatibility import NAMED, RELEASED, asyncapi_changes, changes, load, openapi_changes, verdict

Document = dict[str, Any]


def test_every_breaking_change_since_the_last_release_is_named_with_a_reason() -> None:
    assert verdict(changes(), tomllib.loads(NAMED.read_text("utf-8"))) == []


def test_a_change_without_a_name_a_name_without_a_change_and_an_empty_reason_are_problems() -> None:
    assert len(verdict(["a", "b", "c"], {"b": "because", "c": " ", "d": "because"})) == 3


API: Document = {
    "paths": {
        "/jobs": {
            "post": {
                "operationId": "ask",
                "parameters": [
                    {
                        "in": "query",
                        "name": "limit",
                        "schema": {"type": "integer", "maximum": 9, "default": 5},
                    },
                    {"in": "header", "name": "Prefer", "schema": {"type": "string"}},
                ],
                "requestBody": {
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Order"}}}
                },
                "responses": {
                    "202": {
                        "headers": {"Location": {"schema": {"type": "string"}}},
                        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Job"}}},
                    },
                    "422": {"content": {}},
                },
            },
            "get": {"operationId": "list", "responses": {"200": {"content": {"application/json": {}}}}},
        }
    },
    "components": {
        "schemas": {
            "Order": {
                "type": "object",
                "required": ["kind"],
                "properties": {
                    "kind": {"type": "string", "enum": ["a", "b"]},
                    "name": {
                        "anyOf": [{"type": "string", "maxLength": 9, "minLength": 1}, {"type": "null"}],
                        "default": None,
                    },
                    "free": {"type": "object"},
                    "parts": {"type": "array", "items": {"$ref": "#/components/schemas/Order"}},
                },
            },
            "Job": {
                "type": "object",
                "required": ["id", "status"],
                "properties": {
                    "id": {"type": "string", "format": "uuid"},
                    "status": {"type": "string", "enum": ["x", "y"]},
                    "rows": {"type": "integer", "minimum": 0},
                },
            },
        }
    },
}
ORDER = API["components"]["schemas"]["Order"]
JOB = API["components"]["schemas"]["Job"]
Change = Callable[[Document], object]


def at(*path: str | int) -> Callable[[Document], Any]:
    def find(document: Document) -> Any:
        place: Any = document
        for part in path:
            place = place[part]
        return place

    return find


ask = at("paths", "/jobs", "post")
order = at("components", "schemas", "Order")
ordered = at("components", "schemas", "Order", "properties")
job = at("components", "schemas", "Job")
sent = at("components", "schemas", "Job", "properties")

BREAKING: dict[str, Change] = {
    "POST /jobs: the call is gone": lambda d: d["paths"]["/jobs"].pop("post"),
    "GET /jobs: the call is gone": lambda d: d["paths"]["/jobs"].pop("get"),
    "operationId was ask": lambda d: ask(d).update(operationId="order"),
    "it needs a token now": lambda d: ask(d).update(security=[{"bearer": []}]),
    "query parameter limit: it is gone": lambda d: ask(d)["parameters"].pop(0),
    "query parameter limit: it is required now": lambda d: ask(d)["parameters"][0].update(required=True),
    "query parameter new: it is required now": lambda d: ask(d)["parameters"].append(
        {"in": "query", "name": "new", "required": True}
    ),
    "query parameter limit: maximum was 9 and is 8": lambda d: ask(d)["parameters"][0]["schema"].update(
        maximum=8
    ),
    "query parameter limit: integer is no longer": lambda d: ask(d)["parameters"][0].update(
        schema={"type": "string"}
    ),
    "query parameter limit: the default was 5 and is 7": lambda d: ask(d)["parameters"][0]["schema"].update(
        default=7
    ),
    ".name: the default was null and is none": lambda d: ordered(d)["name"].pop("default"),
    "a body is required now": lambda d: ask(d)["requestBody"].update(required=True),
    "body application/json: it is no longer accepted": lambda d: ask(d)["requestBody"]["content"].pop(
        "application/json"
    ),
    "response 202: it is gone": lambda d: ask(d)["responses"].pop("202"),
    "response 422: it is gone": lambda d: ask(d)["responses"].pop("422"),
    "response 202: header Location: it is gone": lambda d: ask(d)["responses"]["202"]["headers"].clear(),
    "response 202 application/json: it is gone": lambda d: ask(d)["responses"]["202"]["content"].clear(),
    '.kind: the value "b" is no longer accepted': lambda d: ordered(d)["kind"]["enum"].remove("b"),
    ".name: the field is gone": lambda d: ordered(d).pop("name"),
    ".name: the field is required now": lambda d: order(d)["required"].append("name"),
    ".name: null is no longer accepted": lambda d: ordered(d)["name"]["anyOf"].pop(1),
    ".name: string is no longer accepted": lambda d: ordered(d)["name"]["anyOf"].pop(0),
    ".name: maxLength was 9 and is 8": lambda d: ordered(d)["name"]["anyOf"][0].update(maxLength=8),
    ".name: minLength was 1 and is 2": lambda d: ordered(d)["name"]["anyOf"][0].update(minLength=2),
    ".name: pattern was null": lambda d: ordered(d)["name"]["anyOf"][0].update(pattern="^x"),
    '.name: only ["u"] is accepted': lambda d: ordered(d)["name"]["anyOf"][0].update(enum=["u"]),
    ".*: false instead of true": lambda d: ordered(d)["free"].update(additionalProperties=False),
    ".parts: maxItems was null and is 1": lambda d: ordered(d)["parts"].update(maxItems=1),
    ".parts[]: object is no longer accepted": lambda d: ordered(d)["parts"].update(items={"type": "string"}),
    ".id: the field is gone": lambda d: sent(d).pop("id"),
    ".id: the field can be missing now": lambda d: job(d)["required"].remove("id"),
    ".id: null is new": lambda d: sent(d)["id"].update(type=["string", "null"]),
    ".id: integer is new": lambda d: sent(d)["id"].update(type="integer"),
    '.id: format was "uuid"': lambda d: sent(d)["id"].pop("format"),
    '.status: the value "z" is new': lambda d: sent(d)["status"]["enum"].append("z"),
    ".status: values beside": lambda d: sent(d)["status"].pop("enum"),
    ".rows: minimum was 0 and is null": lambda d: sent(d)["rows"].pop("minimum"),
    ".rows: number is new": lambda d: sent(d)["rows"].update(type="number"),
}

HARMLESS: dict[str, Change] = {
    "nothing": lambda d: None,
    "a new call": lambda d: d["paths"].update({"/new": {"get": {"responses": {}}}}),
    "a new parameter": lambda d: ask(d)["parameters"].append({"in": "query", "name": "new"}),
    "the case of a header": lambda d: ask(d)["parameters"][1].update(name="prefer"),
    "a wider parameter": lambda d: ask(d)["parameters"][0]["schema"].update(maximum=10, type="number"),
    "a new field of a request": lambda d: ordered(d).update(new={"type": "string"}),
    "a new value of a request": lambda d: ordered(d)["kind"]["enum"].append("c"),
    "a list of values became a pattern that allows them": lambda d: ordered(d).update(
        kind={"type": "string", "pattern": "^[a-z]$"}
    ),
    "a field that need not be sent": lambda d: order(d)["required"].remove("kind"),
    "a longer text": lambda d: ordered(d)["name"]["anyOf"][0].update(maxLength=10),
    "one more type": lambda d: ordered(d)["name"]["anyOf"].append({"type": "integer"}),
    "a new field of a response": lambda d: (sent(d).update(new={}), job(d)["required"].append("new")),
    "fewer values in a response": lambda d: sent(d)["status"]["enum"].remove("y"),
    "a response that is more exact": lambda d: sent(d)["rows"].update(maximum=5),
    "a new error": lambda d: ask(d)["responses"].update({"429": {}}),
    "a reference in place of a schema": lambda d: ordered(d)["parts"].update(items=ORDER),
}


@each_row("said", BREAKING)
def test_each_kind_of_breaking_change_is_found(said: str) -> None:
    changed = copy.deepcopy(API)
    BREAKING[said](changed)
    found = list(openapi_changes(API, changed))
    assert found
    assert any(said in line for line in found), found


@each_row("what", HARMLESS)
def test_changes_that_break_nothing_are_not_reported(what: str) -> None:
    changed = copy.deepcopy(API)
    HARMLESS[what](changed)
    assert list(openapi_changes(API, changed)) == []


EVENT_CHANGES: dict[str, Change] = {
    "exports.events: the topic is gone": lambda d: d["channels"].pop("exports.events"),
    "its address was exports.events": lambda d: d["channels"]["exports.events"].update(address="other"),
    "exports.requests: it is sent by the service now": lambda d: d["operations"]["admitRequests"].update(
        action="send"
    ),
    "exports.events export.failed: the message is gone": lambda d: d["channels"]["exports.events"][
        "messages"
    ].pop("export.failed"),
    "payload.data.job_id: the field is gone": lambda d: d["components"]["schemas"]["export.failed"][
        "properties"
    ]["data"]["properties"].pop("job_id"),
    "payload.data.format: the field is gone": lambda d: d["components"]["schemas"]["export.requested"][
        "properties"
    ]["data"]["properties"].pop("format"),
}


@pytest.mark.parametrize("said", EVENT_CHANGES)
def test_breaking_changes_of_the_events_of_the_last_release_are_found(said: str) -> None:
    _, events = load(RELEASED)
    changed = copy.deepcopy(dict(events))
    EVENT_CHANGES[said](changed)
    assert any(said in line for line in asyncapi_changes(events, changed))
    assert list(asyncapi_changes(events, copy.deepcopy(events))) == []


def with_names_once(fields: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    """Split fields into groups in which each name is there once. Return the schemas by names of fields."""
    groups: list[dict[str, str]] = []
    for schema, key in fields:
        for group in groups:
            if key not in group:
                group[key] = schema
                break
        else:
            groups.append({key: schema})
    return groups


def test_a_field_of_the_last_release_that_is_gone_is_found_wherever_it_is() -> None:
    api, _ = load(RELEASED)
    schemas = api["components"]["schemas"]

    def missed(gone: Mapping[str, str]) -> list[tuple[str, str]]:
        """Return those of the fields, which have the schemas by name, that are gone without a word."""
        without = {
            name: {
                **schema,
                "properties": {
                    key: value for key, value in schema["properties"].items() if gone.get(key) != name
                },
            }
            for name, schema in schemas.items()
            if name in gone.values()
        }
        changed = {**api, "components": {**api["components"], "schemas": schemas | without}}
        found = "\n".join(openapi_changes(api, changed))
        return [(name, key) for key, name in gone.items() if f".{key}: the field is gone" not in found]

    left = sorted(
        {
            (name, list(schema["properties"])[place])
            for name, schema in schemas.items()
            if schema.get("properties")
            for place in (0, -1)
        }
    )
    assert len(left) > 100
    while left:
        # One of them can be reached only through another that is gone too. It is examined again without that.
        again = [field for group in with_names_once(left) for field in missed(group)]
        assert len(again) < len(left), again
        left = again
