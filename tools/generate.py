"""Writes the documents that are made from code: ``make docs``; a test holds them to what the code says."""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from api.app import create_app
from stream_app.settings import Settings
from streaming_exporter.events import EventType
from tools import asyncapi, licences
from tools.schemas import event_schema

DOCS = Path(__file__).parents[1] / "docs"


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        """Readers look things up by reference, not by YAML's anchors."""
        return True


def documents() -> dict[Path, str]:
    """Each document's place and content."""
    described = asyncapi.document(version("streaming-exporter"))
    openapi = create_app(Settings()).openapi()
    return {
        DOCS / "asyncapi.yaml": yaml.dump(
            described, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110
        ),
        DOCS / "licences.md": licences.document(),
        DOCS / "openapi.json": _json(openapi),
        **{DOCS / "schemas" / f"{kind.value}.json": _json(event_schema(kind)) for kind in EventType},
    }


def _json(content: Any) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for path, content in documents().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(content, "utf-8")
