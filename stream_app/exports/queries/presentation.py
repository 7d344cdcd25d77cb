"""What people see of rows: captions, time zone, and the options that depend on a locale.

It changes how a file is written, never which rows it has. Without these options, nothing is changed.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import asyncpg

from stream_app.datasets.models import ColumnSettings, Dataset
from stream_app.exports.columns import Column
from stream_app.exports.formats.base import Format
from stream_app.exports.queries.row_query import RowQuery
from stream_app.locales import find_locale
from stream_app.time_zones import TimeZone, check_sql, check_zone_name, find_zone
from streaming_exporter.errors import Rejected
from streaming_exporter.events import Options

Fetch = Callable[[str], Awaitable[Sequence[Any]]]
"""Returns the rows of a small query on the source database."""

_NO_SETTINGS = ColumnSettings()


def check_options(options: Options) -> None:
    """Check the names in ``options``.

    Raises:
        Rejected: there is no such time zone or locale.
    """
    if options.timezone is not None:
        check_zone_name(options.timezone)
    if options.locale is not None:
        find_locale(options.locale)


def completed_options(options: Options, dataset: Dataset) -> Options:
    """Return ``options`` with what a requester has left open: the dataset's time zone, the delimiter.

    The delimiter of csv is a semicolon where the locale has a decimal comma.

    Raises:
        Rejected: there is no such time zone or locale.
    """
    check_options(options)
    changes: dict[str, Any] = {}
    if options.timezone is None and dataset.timezone is not None:
        check_zone_name(dataset.timezone, f"datasets.{dataset.name}.timezone")
        changes["timezone"] = dataset.timezone
    if options.locale is not None and "delimiter" not in options.model_fields_set:
        changes["delimiter"] = find_locale(options.locale).delimiter
    return options.model_copy(update=changes) if changes else options


async def resolve_options(
    options: Options, dataset: Dataset, fetch: Fetch
) -> tuple[Options, TimeZone | None]:
    """Return the options of a file, and its time zone with the data that the source database has of it.

    Raises:
        Rejected: there is no such time zone or locale, or the source database does not know the zone.
    """
    if options.timezone is None and options.locale is None and dataset.timezone is None:
        return options, None

    def complete() -> tuple[Options, TimeZone | None]:
        completed = completed_options(options, dataset)
        return completed, None if completed.timezone is None else find_zone(completed.timezone)

    completed, zone = await asyncio.to_thread(complete)  # the first use of a name takes long
    return completed, None if zone is None else await _as_on_server(zone, fetch)


async def _as_on_server(zone: TimeZone, fetch: Fetch) -> TimeZone:
    try:
        rows = await fetch(check_sql(zone))
    except Rejected as error:
        if isinstance(error.__cause__, asyncpg.InvalidParameterValueError):
            raise Rejected(
                f"the source database does not know the time zone {zone.name!r}; choose another one, such as "
                "UTC; operators: update the time-zone data of the database server",
                code="unknown_timezone",
                field="options.timezone",
            ) from error
        raise
    differs = rows[0][0] if rows else None
    return zone if differs is None else zone.until(differs)


def presented(
    query: RowQuery, dataset: Dataset, options: Options, file_format: Format, zone: TimeZone | None
) -> RowQuery:
    """Return ``query`` with columns as the file shows them: with captions, number formats and in ``zone``.

    Raises:
        Rejected: two columns have the same label, and programs find values of this format by them.
    """
    columns = tuple(_presented(item, dataset, options, zone) for item in query.columns)
    if options.headers == "labels" and file_format.unique_titles:
        _check_titles(columns, file_format)
    return query if columns == query.columns else replace(query, columns=columns)


def settings_of(dataset: Dataset, column: str) -> ColumnSettings:
    """Return what the datasets file says about a column."""
    return dataset.column_settings.get(column, _NO_SETTINGS)


def title_of(dataset: Dataset, options: Options) -> str:
    """Return the dataset's label if the file has labels, else nothing."""
    if options.headers != "labels":
        return ""
    return label_for(dataset.label, dataset.labels, options.language) or ""


def label_for(label: str | None, labels: Mapping[str, str], language: str | None) -> str | None:
    """Return the label in ``language``, or in the nearest more general language: de-AT, de, ``label``.

    That is the look-up of RFC 4647, section 3.4.
    """
    if language is not None and labels:
        known = {tag.replace("_", "-").lower(): text for tag, text in labels.items()}
        parts = language.replace("_", "-").lower().split("-")
        while parts:
            found = known.get("-".join(parts))
            if found is not None:
                return found
            parts.pop()
            if parts and len(parts[-1]) == 1:  # a singleton belongs to what followed it
                parts.pop()
    return label


def shown_rows(
    query: RowQuery, dataset: Dataset, options: Options, file_format: Format
) -> tuple[RowQuery, Options]:
    """Return ``query`` and ``options`` for a check or an estimate, without asking the source database.

    Raises:
        Rejected: as :func:`resolve_options` and :func:`presented`.
    """
    completed = completed_options(options, dataset)
    zone = None if completed.timezone is None else find_zone(completed.timezone)
    return presented(query, dataset, completed, file_format, zone), completed


def _presented(item: Column, dataset: Dataset, options: Options, zone: TimeZone | None) -> Column:
    settings = settings_of(dataset, item.name)
    changes: dict[str, Any] = {}
    if options.headers == "labels":
        changes["caption"] = label_for(settings.label, settings.labels, options.language) or ""
    if settings.format is not None and item.mask is None:
        changes["number_format"] = settings.format
    shown = replace(item, **changes) if changes else item
    return shown if zone is None else shown.in_zone(zone)


def _check_titles(columns: Sequence[Column], file_format: Format) -> None:
    first: dict[str, str] = {}
    for item in columns:
        other = first.setdefault(item.title, item.name)
        if other != item.name:
            raise Rejected(
                f"the columns {other!r} and {item.name!r} have the same label {item.title!r}, and a file in "
                f"the format {file_format.name} cannot have two values of one name; choose names, fewer "
                "columns or another format",
                code="duplicate_labels",
                field="options.headers",
                allowed=["names"],
            )
