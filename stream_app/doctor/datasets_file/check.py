"""``exporter datasets check``: compares the datasets file with the databases, and changes nothing."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import replace
from typing import Any

from stream_app.datasets.faults import DatasetsFileError, Fault, Place, nearest
from stream_app.datasets.file import DatasetsFile, read_datasets
from stream_app.datasets.format_choice import unknown_formats
from stream_app.datasets.missing_datasets import missing_datasets
from stream_app.datasets.models import DEFAULT_SOURCE, Dataset
from stream_app.datasets.source_urls import url_or_fault
from stream_app.datasets.template_losses import template_losses
from stream_app.datasets.typed_values import TEMPORAL
from stream_app.destinations.secrets import is_plain_http, missing_secrets
from stream_app.doctor.datasets_file.check_bundles import check_bundles, check_filters
from stream_app.doctor.datasets_file.remarks import Remark
from stream_app.doctor.datasets_file.sql_errors import refusal_text
from stream_app.doctor.findings import State
from stream_app.exports.columns import quote_name
from stream_app.exports.formats.registry import FORMATS
from stream_app.exports.masks.hash_keys import hash_keys
from stream_app.exports.masks.registry import needs_keys
from stream_app.exports.queries.deletions import DELETION_KINDS
from stream_app.exports.sources.registry import PoolSize, Sources
from stream_app.exports.sources.source import Source
from stream_app.exports.tables.catalog import Catalog
from stream_app.exports.tables.source_table import SourceTable
from stream_app.settings import Settings
from streaming_exporter.errors import ExporterError, Rejected

SECONDS = 10.0
"""Time limit for the first answer of a source."""

_ROLE = "SELECT rolname, rolsuper, rolbypassrls FROM pg_catalog.pg_roles WHERE rolname = current_user"

_TABLES = """
SELECT n.nspname || '.' || c.relname AS name
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
ORDER BY 1 LIMIT 10000
"""

_TABLE_FACTS = """
SELECT c.relkind IN ('r', 'p') AS is_table, current_user::text AS role,
       has_table_privilege(c.oid, 'SELECT') OR has_any_column_privilege(c.oid, 'SELECT') AS can_read,
       has_table_privilege(c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE') AS can_write,
       coalesce((
           SELECT json_agg(item.columns) FROM (
               SELECT json_agg(coalesce(a.attname, '') ORDER BY key.position) AS columns
               FROM pg_index i
               CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS key (number, position)
               LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = key.number
               WHERE i.indrelid = c.oid AND i.indisvalid AND i.indpred IS NULL
               GROUP BY i.indexrelid
           ) AS item
       ), '[]'::json)::text AS indexes
FROM pg_class c WHERE c.oid = to_regclass($1)
"""
"""``indexes`` has the columns of each index, as JSON; an expression is an empty name."""


async def check_datasets_file(settings: Settings) -> list[Remark]:
    """Return everything that is wrong or unwise, in the order of the file."""
    try:
        content, faults = read_datasets(settings.datasets_file)
    except DatasetsFileError as error:
        return [Remark(State.PROBLEM, fault) for fault in error.faults]
    remarks = [Remark(State.PROBLEM, fault) for fault in faults]
    if not faults and (reason := missing_datasets(content.datasets, settings.datasets_file)):
        remarks.append(Remark(State.PROBLEM, Fault(None, None, (), reason)))
    remarks += check_bundles(content)
    for dataset, parts in template_losses(content.datasets.values()):
        text = f"files do not have these parts of the template: {'; '.join(parts)}"
        remarks.append(Remark(State.WARNING, content.fault(("datasets", dataset.name, "template"), text)))
    for destination in content.destinations.values():
        for key, text in missing_secrets(destination):
            remarks.append(
                Remark(State.PROBLEM, content.fault(("destinations", destination.name, key), text))
            )
        if is_plain_http(destination, settings):
            text = "files and signatures go over the network without encryption; use https"
            remarks.append(
                Remark(State.WARNING, content.fault(("destinations", destination.name, "endpoint"), text))
            )
    usable = {}
    for name, item in content.sources.items():
        url = url_or_fault(item)
        if isinstance(url, str):
            remarks.append(Remark(State.PROBLEM, content.fault(("sources", name, "url_env"), url)))
        else:
            usable[name] = item
    sources = Sources(settings, replace(content, sources=usable), PoolSize(2, lambda limit: 2))
    try:
        checks = [_SourceCheck(content, source, settings) for source in sources.each()]
        used = {dataset.source for dataset in content.datasets.values()}
        wanted = [check for check in checks if check.source.name != DEFAULT_SOURCE or DEFAULT_SOURCE in used]
        for found in await asyncio.gather(*(check.run() for check in wanted)):
            remarks += found
    finally:
        await sources.close()
    return sorted(remarks, key=lambda remark: (str(remark.fault.file), remark.fault.line or 0))


class _SourceCheck:
    """Checks one source and its datasets."""

    def __init__(self, content: DatasetsFile, source: Source, settings: Settings) -> None:
        self._content = content
        self._settings = settings
        self.source = source
        self._catalog = Catalog(source)
        self._tables: list[str] | None = None

    async def run(self) -> list[Remark]:
        """Return the remarks about the source and its datasets."""
        name = self.source.name
        place: Place = ("sources", name)
        try:
            async with asyncio.timeout(SECONDS):
                (role,) = await self.source.fetch(_ROLE)
        except (ExporterError, TimeoutError) as error:
            text = str(error) or f"no answer within {SECONDS:.0f} s"
            if name == DEFAULT_SOURCE:
                return [Remark(State.PROBLEM, Fault(None, None, (), f"EXPORTER_SOURCE_DATABASE_URL: {text}"))]
            return [Remark(State.PROBLEM, self._content.fault(place, text))]
        remarks = []
        if role["rolsuper"] or role["rolbypassrls"]:
            what = "is a superuser" if role["rolsuper"] else "bypasses row-level security"
            text = f"the role {role['rolname']} {what}; use one that can only SELECT the exported tables"
            fault = Fault(None, None, (), f"EXPORTER_SOURCE_DATABASE_URL: {text}")
            remarks.append(
                Remark(
                    State.WARNING,
                    fault if name == DEFAULT_SOURCE else self._content.fault((*place, "url_env"), text),
                )
            )
        for dataset in self._content.datasets.values():
            if dataset.source == name:
                remarks += [remark async for remark in self._dataset(dataset)]
        remarks += [
            remark
            for bundle in self._content.bundles.values()
            for dataset in bundle.members
            if dataset.source == name
            async for remark in check_filters(self._content, self._catalog, bundle, dataset)
        ]
        return remarks

    def _problem(self, dataset: Dataset, *place: str | int, text: str) -> Remark:
        return Remark(State.PROBLEM, self._content.fault(("datasets", dataset.name, *place), text))

    def _warning(self, dataset: Dataset, *place: str | int, text: str) -> Remark:
        return Remark(State.WARNING, self._content.fault(("datasets", dataset.name, *place), text))

    async def _dataset(self, dataset: Dataset) -> AsyncIterator[Remark]:
        for remark in self._own_keys(dataset):
            yield remark
        try:
            table = await self._catalog.table(_without_names(dataset))
        except Rejected as error:
            yield await self._missing(dataset, error)
            return
        except ExporterError as error:
            yield self._problem(dataset, text=str(error))
            return
        missing = list(_missing_columns(dataset, table))
        for place, name in missing:
            what = "query" if table.query is not None else "table"
            text = f"the {what} has no column {name!r}{nearest(name, table.all_columns)}"
            yield self._problem(dataset, *place, text=text)
        time = table.all_columns.get(dataset.time or "")
        if time is not None and time.kind not in TEMPORAL:
            text = f"the column has the type {time.type}; allowed: dates and timestamps"
            yield self._problem(dataset, "time", text=text)
        deleted = table.all_columns.get(dataset.deleted_at or "")
        if deleted is not None and deleted.kind not in DELETION_KINDS:
            text = f"the column has the type {deleted.type}; allowed: timestamps"
            yield self._problem(dataset, "deleted_at", text=text)
        if not missing:
            try:
                await self._catalog.table(dataset)  # with its masks
            except ExporterError as error:
                yield self._problem(dataset, "columns", text=refusal_text(dataset, error))
        async for remark in self._unwise(dataset, table):
            yield remark

    def _own_keys(self, dataset: Dataset) -> Iterator[Remark]:
        for name in unknown_formats(dataset, FORMATS):
            place = ("formats", (dataset.formats or ()).index(name))
            text = (
                f"there is no format {name!r}{nearest(name, FORMATS)}; allowed: {', '.join(sorted(FORMATS))}"
            )
            yield self._problem(dataset, *place, text=text)
        for name, item in dataset.column_settings.items():
            try:
                if needs_keys(item.mask):
                    hash_keys(self._settings)
            except Rejected as error:
                yield self._problem(dataset, "columns", name, "mask", text=str(error))

    async def _missing(self, dataset: Dataset, error: Rejected) -> Remark:
        if dataset.table is None:
            return self._problem(dataset, "query", text=refusal_text(dataset, error))
        if error.code != "missing_table":
            return self._problem(dataset, "table", text=str(error))
        if self._tables is None:
            self._tables = [row["name"] for row in await self.source.fetch(_TABLES)]
        names = [name.removeprefix("public.") for name in self._tables] if "." not in dataset.table else None
        text = f"there is no table {dataset.table!r} in the source {self.source.name}"
        return self._problem(dataset, "table", text=text + nearest(dataset.table, names or self._tables))

    async def _unwise(self, dataset: Dataset, table: SourceTable) -> AsyncIterator[Remark]:
        """Yield what works and is slow, or gives the role more than it needs."""
        if table.has_row_security and not dataset.session:
            yield self._warning(
                dataset,
                text="row-level security hides rows of the table from the service's role; set session, if "
                "the policies read the user from a setting",
            )
        if dataset.session and not table.has_row_security:
            yield self._warning(
                dataset,
                "session",
                text="no policy of row-level security applies to the service's role, so the settings hide "
                "no row",
            )
        if table.query is not None:
            return
        facts = await self._facts(table)
        if not facts["can_read"]:
            yield self._problem(
                dataset, "table", text=f"the role {facts['role']} has no permission to SELECT; grant it"
            )
        if facts["can_write"]:
            yield self._warning(
                dataset, "table", text=f"the role {facts['role']} can write; the service needs SELECT alone"
            )
        if not facts["is_table"]:
            return
        if not table.primary_key:
            yield self._warning(
                dataset, "table", text="it has no primary key, so errors cannot name a row by its key"
            )
        indexes: list[list[str]] = json.loads(facts["indexes"])
        for place, names, use in _index_uses(dataset):
            if not set(names) <= table.all_columns.keys():
                continue
            if not any(index[: len(names)] == list(names) for index in indexes):
                what = ", ".join(names)
                yield self._warning(dataset, *place, text=f"no index begins with {what}; {use}")

    async def _facts(self, table: SourceTable) -> Mapping[str, Any]:
        name = f"{quote_name(table.schema)}.{quote_name(table.name)}"
        (row,) = await self.source.fetch(_TABLE_FACTS, name)
        return dict(row)


def _without_names(dataset: Dataset) -> Dataset:
    """Return the dataset without what names its columns, so that its table can be described."""
    return dataset.model_copy(
        update={
            "columns": None,
            "order": None,
            "owner": None,
            "time": None,
            "deleted_at": None,
            "scopes": {},
            "column_settings": {},
        }
    )


def _missing_columns(dataset: Dataset, table: SourceTable) -> Iterator[tuple[Place, str]]:
    """Yield the places that name a column which the table does not have, with its name."""
    for place, name in _named_columns(dataset):
        if name not in table.all_columns:
            yield place, name


def _named_columns(dataset: Dataset) -> Iterator[tuple[Place, str]]:
    listed = "only" if dataset.column_settings else "columns"
    for position, name in enumerate(dataset.columns or ()):
        yield (listed, position), name
    for position, name in enumerate(dataset.order or ()):
        yield ("order", position), name
    if dataset.owner is not None:
        yield ("owner",), dataset.owner
    if dataset.time is not None:
        yield ("time",), dataset.time
    if dataset.deleted_at is not None:
        yield ("deleted_at",), dataset.deleted_at
    for name, scope in dataset.scopes.items():
        yield ("scopes", name, "column"), scope.column
    for name in dataset.column_settings:
        yield ("columns", name), name


def _index_uses(dataset: Dataset) -> Iterator[tuple[Place, tuple[str, ...], str]]:
    """Yield the columns that an index should begin with, and what is slow without it."""
    if dataset.owner is not None:
        yield ("owner",), (dataset.owner,), "each export of a user's own rows reads the whole table"
    for name, scope in dataset.scopes.items():
        if scope.column != dataset.owner:
            text = f"each export with scope {name} reads the whole table"
            yield ("scopes", name, "column"), (scope.column,), text
    if dataset.time is not None:
        yield ("time",), (dataset.time,), "each run of a schedule with a window reads the whole table"
    if dataset.deleted_at is not None:
        text = "each run of a schedule with a window reads the whole table for its deletions"
        yield ("deleted_at",), (dataset.deleted_at,), text
    if dataset.order:
        yield ("order",), dataset.order, "each export sorts its rows"
