"""Captions in every format: names or labels, in the language that fits best."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import asyncpg
import pyarrow.parquet as pq
import pytest
from openpyxl import load_workbook
from pypdf import PdfReader

from stream_app.datasets.file import load_datasets
from stream_app.datasets.models import ColumnSettings, Dataset
from stream_app.exports.formats.registry import FORMATS
from streaming_exporter.errors import Rejected
from tests.documents import BLOCKS
from tests.integration.exports.conftest import Export

SETTINGS = {
    "total": ColumnSettings(label="Total (EUR)", labels={"de": 'Summe; "netto", brutto', "de-AT": "Betrag"}),
    "note": ColumnSettings(labels={"fr": "Remarque", "zh-Hant": "備註"}),
    "formula": ColumnSettings(label="=1+1"),
}


@pytest.fixture
async def dataset(database: asyncpg.Connection, schema: str) -> Dataset:
    """A dataset with labels in some languages."""
    await database.execute(
        "CREATE TABLE orders (id int PRIMARY KEY, total numeric(10,2), note text, formula text, parts int[]);"
        "INSERT INTO orders VALUES (1, 1.5, 'a', 'b', '{1,2}')"
    )
    return Dataset(
        name="orders",
        table=f"{schema}.orders",
        label="Orders",
        labels={"de": "Bestellungen"},
        column_settings=SETTINGS,
    )


def titles(name: str, content: bytes) -> list[str]:
    """Return what the file calls its columns."""
    match name:
        case "csv":
            return next(csv.reader(io.StringIO(content.decode())))
        case "json":
            return list(json.loads(content)[0])
        case "ndjson":
            return list(json.loads(content.splitlines()[0]))
        case "excel":
            sheet: Any = load_workbook(io.BytesIO(content)).active
            return [str(cell.value) for cell in sheet[1]]
        case "parquet":
            return pq.read_schema(io.BytesIO(content)).names  # type: ignore[no-any-return]
    raise AssertionError(name)


async def test_the_example_of_the_documents(
    export: Export, database: asyncpg.Connection, schema: str, tmp_path: Path
) -> None:
    blocks = {block.language: block.text for block in BLOCKS if block.document.name == "languages.md"}
    await database.execute(
        "CREATE TABLE orders (id int, placed_at timestamptz, total numeric(10,2));"
        "INSERT INTO orders VALUES (1, '2026-07-01 10:00:00+00', 1234.5)"
    )
    path = tmp_path / "datasets.toml"
    path.write_text(blocks["toml"].replace("shop.", f"{schema}."))
    dataset = load_datasets(path).datasets["orders"]
    exported = await export("", "csv", dataset=dataset, options=json.loads(blocks["json"]))
    assert exported.content.decode() == ("id;Bestellt am;Betrag (EUR)\n1;01.07.2026 12:00:00+02:00;1234,50\n")
    assert exported.data.manifest["label"] == "Bestellungen"
    assert exported.data.manifest["labels"] == {"placed_at": "Bestellt am", "total": "Betrag (EUR)"}
    assert exported.data.manifest["timezone"] == "Europe/Vienna"
    usual = await export("", "ndjson", dataset=dataset)
    assert not {"label", "labels"} & usual.data.manifest.keys()
    assert json.loads(usual.content) == {
        "id": 1,
        "placed_at": "2026-07-01T12:00:00+02:00",
        "total": 1234.50,
    }


NAMES = ["id", "total", "note", "formula", "parts"]
LANGUAGES = {
    None: ["id", "Total (EUR)", "note", "=1+1", "parts"],
    "de": ["id", 'Summe; "netto", brutto', "note", "=1+1", "parts"],
    "de-AT": ["id", "Betrag", "note", "=1+1", "parts"],
    "de-at-1996": ["id", "Betrag", "note", "=1+1", "parts"],
    "de_CH": ["id", 'Summe; "netto", brutto', "note", "=1+1", "parts"],
    "fr-CA": ["id", "Total (EUR)", "Remarque", "=1+1", "parts"],
    "zh-Hant-TW": ["id", "Total (EUR)", "備註", "=1+1", "parts"],
    "zh-TW": ["id", "Total (EUR)", "note", "=1+1", "parts"],
}


@pytest.mark.parametrize("name", sorted(FORMATS.keys() - {"pdf"}))
async def test_labels_in_the_nearest_language(export: Export, dataset: Dataset, name: str) -> None:
    """Every language in one format, and one with every kind of label in the others."""
    options: dict[str, Any] = {"guard_formulas": False}
    assert titles(name, (await export("", name, dataset=dataset, options=options)).content) == NAMES
    for language in LANGUAGES if name == "csv" else ("de-AT",):
        expected = LANGUAGES[language]
        asked = {**options, "headers": "labels"} | ({"language": language} if language else {})
        assert titles(name, (await export("", name, dataset=dataset, options=asked)).content) == expected
    # A language alone changes nothing.
    plain = await export("", name, dataset=dataset, options={**options, "language": "de"})
    assert titles(name, plain.content) == NAMES


async def test_values_stay_with_their_labels(export: Export, dataset: Dataset) -> None:
    options = {"headers": "labels", "language": "de-AT"}
    for columns in (["note", "total"], ["parts", "total", "note"]):
        exported = await export("", "ndjson", dataset=dataset, columns=columns, options=options)
        row = json.loads(exported.content)
        assert (row["Betrag"], row["note"]) == (1.5, "a")


async def test_captions_are_guarded_like_texts(export: Export, dataset: Dataset) -> None:
    exported = await export("", "csv", dataset=dataset, options={"headers": "labels"})
    assert titles("csv", exported.content)[3] == "'=1+1"


async def test_pdf(export: Export, dataset: Dataset) -> None:
    options = {"headers": "labels", "language": "de"}
    exported = await export("", "pdf", dataset=dataset, options=options, filters={"total": {"gte": 1}})
    text = " ".join(page.extract_text() for page in PdfReader(io.BytesIO(exported.content)).pages)
    assert "Bestellungen" in text
    assert 'Summe; "netto", brutto >= 1' in " ".join(text.split())
    titled = await export("", "pdf", dataset=dataset, options={**options, "title": "Mine"})
    assert "Mine" in PdfReader(io.BytesIO(titled.content)).pages[0].extract_text()


async def test_equal_labels(export: Export, dataset: Dataset) -> None:
    """Programs find values by their names, so two of them cannot be equal. People see both columns."""
    twice = {name: ColumnSettings(label="Same") for name in ("total", "note")}
    same = dataset.model_copy(update={"column_settings": twice})
    like_a_name = dataset.model_copy(update={"column_settings": {"note": ColumnSettings(label="total")}})
    for name in sorted(FORMATS):
        for changed in (same, like_a_name):
            if not FORMATS[name].unique_titles:
                await export("", name, dataset=changed, options={"headers": "labels"})
                continue
            with pytest.raises(Rejected, match="have the same label") as error:
                await export("", name, dataset=changed, options={"headers": "labels"})
            assert error.value.code == "duplicate_labels"
            assert "'total'" in str(error.value)
            assert "'note'" in str(error.value)
            await export("", name, dataset=changed, columns=["id", "note"], options={"headers": "labels"})
    assert {name for name in FORMATS if FORMATS[name].unique_titles} == {"json", "ndjson", "parquet"}


@pytest.mark.parametrize("name", sorted(FORMATS))
async def test_without_options_labels_change_nothing(
    export: Export, dataset: Dataset, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same statement and the same file as for a dataset without labels."""
    from stream_app.exports.sources import snapshot

    statements: list[str] = []
    copy = snapshot.Snapshot.copy

    async def noted(self: snapshot.Snapshot, sql: str, *args: Any, **options: Any) -> int:
        statements.append(sql)
        return await copy(self, sql, *args, **options)

    monkeypatch.setattr(snapshot.Snapshot, "copy", noted)
    plain = dataset.model_copy(update={"column_settings": {}, "labels": {}, "label": None})
    first, second = [await export("", name, dataset=each) for each in (dataset, plain)]
    assert statements[0] == statements[1]
    assert first.data.manifest.keys() == second.data.manifest.keys()
    assert first.data.manifest["options"] == {}
    if name in ("csv", "json", "ndjson"):  # the others have the time of the export
        assert first.content == second.content
