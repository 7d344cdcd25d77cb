"""The examples of docs/queries.md and docs/masks.md, on tables as they describe."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from pydantic import SecretStr

from stream_app.datasets.file import load_datasets
from stream_app.datasets.models import Dataset
from stream_app.exports.pipeline import Exporter
from stream_app.exports.sources.source import Source
from stream_app.exports.tables.catalog import Catalog
from stream_app.settings import Settings
from stream_app.storage.object_store import ObjectStore
from tests.documents import BLOCKS
from tests.integration.exports.conftest import exported_by

CREATE = """
CREATE TABLE customers (
    id int PRIMARY KEY, first_name text, name text, email text, card text, tax_number bigint, born date
);
CREATE TABLE orders (id int PRIMARY KEY, customer_id int, region text, placed_at timestamptz, total numeric);
CREATE TABLE invoices (id int, tenant text);
INSERT INTO customers VALUES (1, 'Jane', 'Doe', 'jane@example.com', '4111111111111234', 7, '2000-01-31');
INSERT INTO orders VALUES (1, 1, 'emea', now(), 5), (2, 1, 'apac', now(), 6), (3, 1, 'emea', '2020-01-01', 7);
INSERT INTO invoices VALUES (1, 'acme'), (2, 'globex');
"""


def block(document: str, language: str, number: int = 0) -> str:
    """Return a fenced block of a document."""
    found = [b.text for b in BLOCKS if b.document.name == document and b.language == language]
    return found[number]


@pytest.fixture
async def examples(database: asyncpg.Connection, schema: str, tmp_path: Path) -> dict[str, Dataset]:
    await database.execute(CREATE)
    await database.execute(block("masks.md", "sql").replace("shop.", f"{schema}."))
    text = "\n".join([block("queries.md", "toml"), block("masks.md", "toml"), block("masks.md", "toml", 1)])
    path = tmp_path / "datasets.toml"
    path.write_text(text.replace("shop.", f"{schema}."))
    return dict(load_datasets(path).datasets)


async def test_the_examples(
    examples: dict[str, Dataset],
    settings: Settings,
    exporter_of: Callable[..., Exporter],
    storage: ObjectStore,
) -> None:
    secret = SecretStr("a secret of the test with 32 characters")
    source = Source(settings.model_copy(update={"link_secret": secret}), connections=2)

    async def exported(name: str, **request: Any) -> list[list[str]]:
        exporter = exporter_of(examples[name], sources=source, catalog=Catalog(source))
        file = await exported_by(exporter, storage, examples[name], "csv", **request)
        return [line.split(",") for line in file.content.decode().split("\n")[1:-1]]

    request = json.loads(block("queries.md", "json"))
    orders = await exported("orders", parameters=request["parameters"])
    assert [(row[0], row[2:]) for row in orders] == [("1", ["5", "Doe"])]
    (customer,) = await exported("customers")
    assert customer[1:5] == ["Jane", "J. D.", "j***@example.com", "****1234"]
    assert (len(customer[5]), customer[6]) == (64, "")
    assert await exported("invoices", claims={"org": "globex"}) == [["2", "globex"]]
    await source.close()
