"""The users of the document about rights see what it says."""

from pathlib import Path

import pytest

from stream_app.datasets.caller import Caller
from stream_app.datasets.file import load_datasets
from stream_app.datasets.rights import usable_scopes
from stream_app.exports.columns import Column, Kind
from stream_app.exports.tables.rights import visible_table
from stream_app.exports.tables.source_table import SourceTable
from streaming_exporter.errors import Rejected
from tests.documents import BLOCKS


@pytest.mark.parametrize(
    ("roles", "claims", "scopes", "columns"),
    [
        ((), {}, None, None),
        (("exports:orders",), {}, ["own"], ["id", "email*"]),
        (("exports:orders", "org-admin"), {"org": "acme"}, ["own", "organisation"], ["id", "email*"]),
        (("exports:orders", "org-admin"), {}, ["own"], ["id", "email*"]),
        (("exports:orders", "exports:finance"), {}, ["own"], ["id", "margin", "email*"]),
        (("exports:orders", "exports:pii"), {}, ["own"], ["id", "email"]),
        (("exports:admin",), {}, ["own"], ["id", "margin", "email"]),
    ],
)
def test_the_documents_users_see_what_it_says(
    tmp_path: Path,
    roles: tuple[str, ...],
    claims: dict[str, str],
    scopes: list[str] | None,
    columns: list[str] | None,
) -> None:
    (block,) = (b for b in BLOCKS if b.document.name == "rights.md" and b.language == "toml")
    (tmp_path / "datasets.toml").write_text(block.text)
    dataset = load_datasets(tmp_path / "datasets.toml").datasets["orders"]
    caller = Caller("ada", frozenset(roles), claims)
    every = {name: Column(name, "text", "text", Kind.TEXT) for name in ("id", "margin", "email")}
    table = SourceTable(dataset, "shop", "orders", tuple(every.values()), every, ())
    if columns is None:
        with pytest.raises(Rejected, match="there is no dataset 'orders'"):
            visible_table(table, caller)
        return
    shown = visible_table(table, caller).columns
    assert [f"{item.name}*" if item.mask else item.name for item in shown] == columns
    assert usable_scopes(dataset, caller) == scopes
