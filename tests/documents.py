"""The fenced blocks of the documents. The comment above each states how it is tested.

- ``<!-- test: run -->``: run against the whole system, in ``tests/e2e/test_documents.py``.
- ``<!-- test: dry PROGRAM -->``: run with a PROGRAM that does nothing, because the real one is not available.
- ``<!-- test: tests/…/test_x.py -->``: that test uses it.
- ``<!-- test: not run: REASON -->``: it cannot be run.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "streaming_exporter" / "README.md"]
DOCUMENTS += sorted(ROOT.glob("docs/**/*.md"))

_BLOCK = re.compile(
    r"(?:<!-- test: (?P<test>[^\n]*) -->\n)?```(?P<language>\w+)\n(?P<text>.*?)```", re.DOTALL
)


@dataclass(frozen=True)
class Block:
    """One fenced block. ``test`` is empty if there is no comment."""

    document: Path
    line: int
    language: str
    test: str
    text: str

    def __str__(self) -> str:
        return f"{self.document.relative_to(ROOT)}:{self.line}"


def _blocks() -> Iterator[Block]:
    for document in DOCUMENTS:
        text = document.read_text("utf-8")
        for found in _BLOCK.finditer(text):
            line = 1 + text.count("\n", 0, found.start("language"))
            yield Block(document, line, found["language"], found["test"] or "", found["text"])


BLOCKS = list(_blocks())
