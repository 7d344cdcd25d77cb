"""The conformance suite of a mask: derive a class from :class:`MaskConformance` in a test module."""

from collections.abc import Mapping
from typing import ClassVar

import pytest

from stream_app.datasets.mask_names import is_mask_name
from stream_app.exports.columns import Column, Kind
from stream_app.exports.masks.base import Mask
from stream_app.exports.masks.registry import check_mask_class
from stream_app.exports.plugins import INTERFACE
from stream_app.plugins.conformance.cases import NAMES, TEXTS, VALUES
from stream_app.plugins.conformance.database import ConformanceDatabase


class MaskConformance:
    """Tests that every mask has to pass.

    A subclass, whose name begins with ``Test``, sets :attr:`mask` and :attr:`examples`.

    Attributes:
        mask: an object of the mask.
        examples: texts, each with its masked form.
    """

    mask: ClassVar[Mask]
    examples: ClassVar[Mapping[str, str | None]] = {}

    def test_the_service_accepts_it(self) -> None:
        check_mask_class(self.mask)
        assert getattr(self.mask, "interface", None) == INTERFACE
        assert is_mask_name(self.mask.name)

    def test_the_examples(self, conformance_database: ConformanceDatabase) -> None:
        assert self.examples
        table = conformance_database.table("id int PRIMARY KEY, value text", list(enumerate(self.examples)))
        assert conformance_database.masked(table, self.mask, "value") == list(self.examples.values())

    @pytest.mark.parametrize("case", TEXTS)
    def test_it_never_shows_a_whole_text(self, conformance_database: ConformanceDatabase, case: str) -> None:
        """A text of a few characters can be a part of what replaces it, such as ``*``."""
        rows = list(enumerate(TEXTS[case]))
        table = conformance_database.table("id int PRIMARY KEY, value text", rows)
        for (_, text), shown in zip(
            rows, conformance_database.masked(table, self.mask, "value"), strict=True
        ):
            assert (shown is None) or text is not None, "NULL stays NULL"
            assert not text or shown is None or (shown != text and (len(text) < 4 or text not in shown))

    @pytest.mark.parametrize("kind", VALUES)
    def test_it_works_for_columns_of_every_type(
        self, conformance_database: ConformanceDatabase, kind: str
    ) -> None:
        """A datasets file can name it for any column. No value of any type is shown as a whole."""
        table = conformance_database.table(f"id int PRIMARY KEY, value {kind}")
        conformance_database.execute(f"INSERT INTO {table} VALUES (1, {VALUES[kind]})")
        conformance_database.execute(f"INSERT INTO {table} VALUES (2, NULL)")
        (value, _), (shown, null) = (
            conformance_database.texts(table, "value"),
            conformance_database.masked(table, self.mask, "value"),
        )
        assert null is None
        assert shown != value

    @pytest.mark.parametrize("name", NAMES)
    def test_it_works_for_columns_of_every_name(
        self, conformance_database: ConformanceDatabase, name: str
    ) -> None:
        quoted = '"' + name.replace('"', '""') + '"'
        table = conformance_database.table(f"id int PRIMARY KEY, {quoted} text", [(1, "a text"), (2, None)])
        shown, null = conformance_database.masked(table, self.mask, name)
        assert null is None
        assert shown != "a text"

    def test_its_sql_depends_on_the_column_alone(self) -> None:
        """The SQL of an export is built once and used again."""
        column = Column("value", "text", "text", Kind.TEXT, cast="pg_catalog.text")
        assert self.mask.sql(column) == self.mask.sql(column)
