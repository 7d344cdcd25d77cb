"""Writes the documents that are generated from code: ``make docs``. A test compares them with the code."""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from api.app import create_app
from stream_app.settings import Settings
from streaming_exporter.events import EventType
from tools import asyncapi, licences, settings_table
from tools.datasets_schema import datasets_schema
from tools.schemas import event_schema

DOCS = Path(__file__).parents[1] / "docs"


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        """Write no YAML anchors: the document has references of its own."""
        return True


def documents() -> dict[Path, str]:
    """Return the path and the content of each document."""
    described = asyncapi.document(version("streaming-exporter"))
    openapi = create_app(Settings()).openapi()
    return {
        DOCS / "asyncapi.yaml": yaml.dump(
            described, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110
        ),
        DOCS / "datasets.schema.json": _json(datasets_schema()),
        DOCS / "licences.md": licences.document(),
        DOCS / "openapi.json": _json(openapi),
        DOCS / "settings.md": settings_table.document(),
        **{DOCS / "schemas" / f"{kind.value}.json": _json(event_schema(kind)) for kind in EventType},
    }


def _json(content: Any) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for path, content in documents().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(content, "utf-8")
