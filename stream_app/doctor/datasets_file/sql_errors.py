"""Texts for operators about queries and masks that PostgreSQL refuses, with its own message."""

import asyncpg

from stream_app.datasets.models import Dataset
from stream_app.datasets.query_text import parse_query
from stream_app.exports.tables.query_catalog import UnusableQuery, describing_sql
from streaming_exporter.errors import ExporterError


def refusal_text(dataset: Dataset, error: ExporterError) -> str:
    """Return why the query of ``dataset``, or one of its masks, cannot be used."""
    if isinstance(error, UnusableQuery) and error.column is not None:
        return f"{error.reason}: {error.column!r}"
    cause = error.__cause__
    if not isinstance(cause, asyncpg.PostgresError):
        return str(error)
    where = _line(dataset, cause)
    return f"PostgreSQL refuses it{where}: {cause}".replace("\n", "; ")


def _line(dataset: Dataset, error: asyncpg.PostgresError) -> str:
    """Return the line of the query where the error is, if PostgreSQL says so."""
    if dataset.query is None or error.position is None:
        return ""
    sql = describing_sql(parse_query(dataset.query, dataset.parameters), dataset)
    return f" in line {sql.count(chr(10), 0, int(error.position))} of the query"
