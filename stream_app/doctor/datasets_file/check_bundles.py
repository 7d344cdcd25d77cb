"""What is wrong or unwise in the bundles of the datasets file."""

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime

from stream_app.datasets.bundles import SUBJECT_ACCESS, Bundle
from stream_app.datasets.file import DatasetsFile
from stream_app.datasets.models import Dataset
from stream_app.datasets.rights import has_own_rows
from stream_app.doctor.datasets_file.remarks import Remark
from stream_app.doctor.findings import State
from stream_app.exports.filters.conditions import conditions
from stream_app.exports.filters.whole_days import day_zone
from stream_app.exports.queries.row_query import reference
from stream_app.exports.tables.catalog import Catalog
from streaming_exporter.errors import ExporterError, Rejected
from streaming_exporter.events import ExportRequest


def check_bundles(content: DatasetsFile) -> Iterator[Remark]:
    """Yield what is unwise: bundles that callers can see and that are refused to them, or that lack data."""
    for name, bundle in content.bundles.items():
        for place, text in _unwise(content, bundle):
            yield Remark(State.WARNING, content.fault(("bundles", name, *place), text))


async def check_filters(
    content: DatasetsFile, catalog: Catalog, bundle: Bundle, dataset: Dataset
) -> AsyncIterator[Remark]:
    """Yield a problem if the filters that a bundle has for a dataset do not fit its table."""
    filters = bundle.filters.get(dataset.name)
    if not filters:
        return
    try:
        table = await catalog.table(dataset)
        request = ExportRequest(
            user_id="check", export_type=dataset.name, format="csv", filters=dict(filters)
        )
        wanted = table.resolve(request, datetime.now(UTC)).filters
        conditions(wanted, table.filterable, reference, zone=day_zone(None, dataset.timezone))
    except Rejected as error:
        if error.code not in ("missing_table", "missing_column"):  # the dataset has these remarks
            place = ("bundles", bundle.name, "filters", dataset.name)
            yield Remark(State.PROBLEM, content.fault(place, str(error)))
    except ExporterError:
        return  # so has the source


def _unwise(content: DatasetsFile, bundle: Bundle) -> Iterator[tuple[tuple[str, ...], str]]:
    for member in bundle.members:
        if member.roles is not None and not (bundle.roles and set(bundle.roles) <= set(member.roles)):
            yield (
                ("datasets",),
                f"dataset {member.name!r} needs a role ({', '.join(member.roles)}), and callers of the "
                "bundle without it are refused; give the bundle these roles, or leave the dataset out",
            )
        for column in bundle.filters.get(member.name, ()):
            settings = member.column_settings.get(column)
            if settings is not None and (settings.roles or settings.mask):
                yield (
                    ("filters", member.name, column),
                    "callers who do not see the column are refused; filter by another column",
                )
    if bundle.kind == SUBJECT_ACCESS:
        names = {member.name for member in bundle.members}
        for dataset in content.datasets.values():
            if has_own_rows(dataset) and dataset.name not in names:
                yield (
                    ("datasets",),
                    f"dataset {dataset.name!r} has rows of users too, and the bundle leaves it out",
                )
