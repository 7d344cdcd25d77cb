"""Compares the documents of the HTTP API and of the events with those of the last release.

``python -m tools.compatibility`` prints every change that breaks a program written for the last release, and
ends with 1 unless ``docs/released/breaking_changes.toml`` names it with a reason. A new release replaces the
documents in ``docs/released`` (``python -m tools.compatibility keep``).
"""

import json
import shutil
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tools import yaml_text
from tools.schema_changes import Comparison, Direction, resolve

DOCS = Path(__file__).parents[1] / "docs"
RELEASED = DOCS / "released"
NAMED = RELEASED / "breaking_changes.toml"
DOCUMENTS = ("openapi.json", "asyncapi.yaml")
METHODS = ("get", "put", "post", "delete", "patch", "head", "options")

Document = Mapping[str, Any]


def openapi_changes(old: Document, new: Document) -> Iterator[str]:
    """Yield the breaking changes of the HTTP API."""
    for path, item in old["paths"].items():
        for method in (name for name in METHODS if name in item):
            call = f"{method.upper()} {path}"
            after = new["paths"].get(path, {}).get(method)
            if after is None:
                yield f"{call}: the call is gone"
                continue
            yield from _Call(old, new, call).changes(item[method], after)


class _Call:
    """One call of the API in both documents."""

    def __init__(self, old: Document, new: Document, call: str) -> None:
        self._old, self._new, self._call = old, new, call
        self._received = Comparison(old, new, Direction.RECEIVED)
        self._sent = Comparison(old, new, Direction.SENT)

    def changes(self, before: Document, after: Document) -> Iterator[str]:
        """Yield its breaking changes."""
        was, is_now = before.get("operationId"), after.get("operationId")
        if was != is_now:
            yield f"{self._call}: operationId was {was} and is {is_now}"
        if not before.get("security", ()) and after.get("security", ()):
            yield f"{self._call}: it needs a token now"
        yield from self._parameters(before, after)
        yield from self._body(before, after)
        yield from self._responses(before, after)

    def _parameters(self, before: Document, after: Document) -> Iterator[str]:
        were, are = _parameters(before, self._old), _parameters(after, self._new)
        for key, parameter in were.items():
            where = f"{self._call}: {key[0]} parameter {key[1]}"
            if key not in are:
                yield f"{where}: it is gone"
                continue
            if are[key].get("required") and not parameter.get("required"):
                yield f"{where}: it is required now"
            yield from self._received.changes(parameter.get("schema", {}), are[key].get("schema", {}), where)
        for key in are.keys() - were.keys():
            if are[key].get("required"):
                yield f"{self._call}: {key[0]} parameter {key[1]}: it is required now"

    def _body(self, before: Document, after: Document) -> Iterator[str]:
        old = resolve(before.get("requestBody", {}), self._old)
        new = resolve(after.get("requestBody", {}), self._new)
        if new.get("required") and not old.get("required"):
            yield f"{self._call}: a body is required now"
        for kind, content in old.get("content", {}).items():
            where = f"{self._call}: body {kind}"
            if kind not in new.get("content", {}):
                yield f"{where}: it is no longer accepted"
                continue
            new_schema = new["content"][kind].get("schema", {})
            yield from self._received.changes(content.get("schema", {}), new_schema, where)

    def _responses(self, before: Document, after: Document) -> Iterator[str]:
        for status, response in before["responses"].items():
            where = f"{self._call}: response {status}"
            if status not in after["responses"]:
                yield f"{where}: it is gone"
                continue
            old = resolve(response, self._old)
            new = resolve(after["responses"][status], self._new)
            for name in old.get("headers", {}).keys() - new.get("headers", {}).keys():
                yield f"{where}: header {name}: it is gone"
            for kind, content in old.get("content", {}).items():
                if kind not in new.get("content", {}):
                    yield f"{where} {kind}: it is gone"
                    continue
                new_schema = new["content"][kind].get("schema", {})
                yield from self._sent.changes(content.get("schema", {}), new_schema, f"{where} {kind}")
        for status in after["responses"].keys() - before["responses"].keys():
            if status < "400" and "200" not in before["responses"]:
                continue  # a second success that the caller asks for
            if status < "400":
                yield f"{self._call}: response {status}: it is new"


def _parameters(call: Document, document: Document) -> dict[tuple[str, str], Document]:
    found = [resolve(each, document) for each in call.get("parameters", ())]
    return {
        (each["in"], each["name"].lower() if each["in"] == "header" else each["name"]): each for each in found
    }


def asyncapi_changes(old: Document, new: Document) -> Iterator[str]:
    """Yield the breaking changes of the events."""
    for name, channel in old["channels"].items():
        if name not in new["channels"]:
            yield f"{name}: the topic is gone"
            continue
        after = new["channels"][name]
        if channel["address"] != after["address"]:
            yield f"{name}: its address was {channel['address']} and is {after['address']}"
        direction = _direction(old, name)
        if direction is not _direction(new, name):
            yield f"{name}: it is {_direction(new, name).value} now"
        for kind, message in channel["messages"].items():
            where = f"{name} {kind}"
            if kind not in after["messages"]:
                yield f"{where}: the message is gone"
                continue
            was, is_now = resolve(message, old), resolve(after["messages"][kind], new)
            comparison = Comparison(old, new, direction)
            for part in ("payload", "headers"):
                yield from comparison.changes(was.get(part, {}), is_now.get(part, {}), f"{where} {part}")
            keys = [_key(each) for each in (was, is_now)]
            yield from comparison.changes(keys[0], keys[1], f"{where} key")


def _direction(document: Document, channel: str) -> Direction:
    """Return whether the service receives or sends the messages of a topic."""
    for operation in document["operations"].values():
        if operation["channel"]["$ref"] == f"#/channels/{channel}":
            return Direction.RECEIVED if operation["action"] == "receive" else Direction.SENT
    return Direction.SENT


def _key(message: Document) -> Document:
    key: Document = message.get("bindings", {}).get("kafka", {}).get("key", {})
    return key


def load(folder: Path) -> tuple[Document, Document]:
    """Return the documents of a folder: OpenAPI and AsyncAPI."""
    openapi, asyncapi = (folder / name for name in DOCUMENTS)
    return json.loads(openapi.read_text("utf-8")), yaml_text.load(asyncapi.read_text("utf-8"))


def changes() -> list[str]:
    """Return every breaking change since the last release."""
    (old_api, old_events), (new_api, new_events) = load(RELEASED), load(DOCS)
    return [*openapi_changes(old_api, new_api), *asyncapi_changes(old_events, new_events)]


def verdict(found: list[str], named: Mapping[str, str]) -> list[str]:
    """Return what is wrong: changes without a name, and names without a change or without a reason."""
    problems = [f"{change} (a breaking change)" for change in found if change not in named]
    problems += [f"{name} (named in {NAMED.name}, but not found)" for name in named if name not in found]
    problems += [f"{name} (its reason is empty)" for name, reason in named.items() if not reason.strip()]
    return problems


def main(arguments: list[str]) -> int:
    """Compare, or ``keep`` the present documents as those of the last release; return the exit code."""
    if arguments == ["keep"]:
        for name in DOCUMENTS:
            shutil.copyfile(DOCS / name, RELEASED / name)
        NAMED.write_text(
            "# Changes that break programs of the last release, each with its reason.\n", "utf-8"
        )
        return 0
    problems = verdict(changes(), tomllib.loads(NAMED.read_text("utf-8")))
    sys.stdout.writelines(f"{problem}\n" for problem in problems)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
