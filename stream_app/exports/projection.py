"""From rows and a format to the statement whose COPY emits the file's bytes. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

from stream_app.events import Options
from stream_app.exports.columns import Column
from stream_app.exports.formats.base import Format
from stream_app.exports.statement import Rows, render


@dataclass(frozen=True, slots=True)
class Statement:
    """``rows`` selects the rows, ``sql`` renders them, ``copy`` are COPY's options in asyncpg's words."""

    rows: str
    sql: str
    copy: Mapping[str, Any]

    @classmethod
    def of(cls, rows: Rows, output: Format, options: Options) -> Self:
        """The statement that renders ``rows`` as ``output``.

        Raises:
            Rejected: the format cannot hold these columns.
        """
        untitled = options.model_copy(update={"title": None})  # there are as many titles as exports
        projection, copy = _projected(output, rows.columns, untitled)
        selected = render(rows.select)
        return cls(selected, f"WITH rows AS ({selected}) {projection}", copy)


@lru_cache(maxsize=64)
def _projected(
    output: Format, columns: tuple[Column, ...], options: Options
) -> tuple[str, Mapping[str, Any]]:
    """What all exports of the same format and columns have in common; it is most of the SQL."""
    projection = output.project(columns, options)
    return render(projection.select), projection.copy
