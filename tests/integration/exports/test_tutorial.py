"""The table, the dataset and the format of the tutorial work unchanged."""

import re
from collections.abc import Callable
from pathlib import Path

import asyncpg
import pytest

from stream_app.datasets.file import load_datasets
from stream_app.datasets.models import Dataset
from stream_app.exports.pipeline import Exporter
from stream_app.exports.task import ExportProgress
from stream_app.storage.object_store import ObjectStore
from streaming_exporter.events import ExportRequest
from tests.integration.exports.conftest import task_for

TEXT = (Path(__file__).parents[3] / "docs" / "tutorial.md").read_text("utf-8")


def block(language: str, containing: str) -> str:
    (found,) = (
        text for text in re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL) if containing in text
    )
    return str(found)


@pytest.fixture
async def orders(database: asyncpg.Connection, schema: str) -> str:
    sql = (
        block("sql", "shop.orders")
        .replace("CREATE SCHEMA shop;", "")
        .replace("shop.orders", f'"{schema}".orders')
    )
    await database.execute(sql)
    return f"{schema}.orders"


async def test_the_dataset_exports_only_the_rows_of_its_user(
    orders: str, tmp_path: Path, exporter_of: Callable[..., Exporter], storage: ObjectStore
) -> None:
    file = tmp_path / "datasets.toml"
    file.write_text(block("toml", "shop_orders").replace("shop.orders", orders))
    dataset = load_datasets(file).datasets["shop_orders"]
    wanted = ExportRequest(user_id="customer-3", export_type="shop_orders", format="csv")
    data = await exporter_of(dataset).run(task_for(wanted), ExportProgress())
    lines = storage.read(data.key or "").decode().splitlines()
    assert data.row_count == 100
    assert lines[0] == "id,customer_id,total,note,placed_at"
    assert all(line.split(",")[1] == "customer-3" for line in lines[1:])


async def test_the_format_of_the_tutorial_works(
    database: asyncpg.Connection, schema: str, exporter_of: Callable[..., Exporter], storage: ObjectStore
) -> None:
    scope: dict[str, type] = {}
    exec(block("python", "WikiFormat"), scope)
    await database.execute(
        f"""CREATE TABLE "{schema}".things (id int PRIMARY KEY, note text);
        INSERT INTO "{schema}".things VALUES (1, 'a|b'), (2, E'two\\nlines'), (3, NULL), (4, 'ä')"""
    )
    exporter = exporter_of(
        Dataset(name="things", table=f"{schema}.things"), formats={"wiki": scope["WikiFormat"]()}
    )
    wanted = ExportRequest(user_id="u", export_type="things", format="wiki", scope="all")
    data = await exporter.run(task_for(wanted), ExportProgress())
    assert storage.read(data.key or "").decode() == (
        "| id | note |\n| --- | --- |\n| 1 | a\\|b |\n| 2 | two lines |\n| 3 |  |\n| 4 | ä |\n"
    )
    assert data.row_count == 4
