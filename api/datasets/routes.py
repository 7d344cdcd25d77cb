"""The call that lists datasets and formats."""

import asyncio
from datetime import timedelta
from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel

from api.auth.authenticator import CurrentUser, User
from api.auth.callers import caller_for, can_see
from api.destinations.routes import DestinationView, destinations_for
from api.documented_route import DocumentedRoute
from api.errors import problem_responses
from api.services import ApiServices, InjectedServices
from stream_app.datasets.bundles import Bundle, has_windows, members_of
from stream_app.datasets.format_choice import allowed_formats
from stream_app.datasets.models import Dataset
from stream_app.datasets.retention import retention_of
from stream_app.datasets.rights import ALL, has_own_rows, usable_scopes, visible_dataset
from stream_app.exports.columns import Column
from stream_app.exports.filters.conditions import operators
from stream_app.exports.format_options import options_of
from stream_app.exports.queries.presentation import settings_of
from stream_app.exports.tables.rights import read_visible
from streaming_exporter.errors import Rejected, Retryable

CATALOGUE_SECONDS = 2.0
"""Time limit for the description of one dataset. A source that is away must not hold up the others."""

router = APIRouter(prefix="/exports/datasets", tags=["datasets"], route_class=DocumentedRoute)


class ColumnView(BaseModel):
    """A column with the operators that filters can use. ``values`` are those of an enum.

    ``masked`` means that you get masked values. Such a column cannot be filtered. ``label`` and ``labels``
    (by language) are the captions for people, and ``format`` is its number format in workbooks.
    """

    name: str
    label: str | None = None
    labels: dict[str, str] = {}
    type: str
    kind: str
    nullable: bool
    operators: list[str]
    values: list[str] | None = None
    masked: bool = False
    format: str | None = None


class ParameterView(BaseModel):
    """A parameter of a dataset's query. ``choices`` are the allowed values; null allows all of the type."""

    name: str
    type: str
    label: str | None
    labels: dict[str, str]
    choices: list[Any] | None
    required: bool
    default: Any
    description: str


class BundleView(BaseModel):
    """What a bundle has: the names of its datasets, in the order of its files.

    ``kind`` is `subject_access` if it has all data about one person.
    """

    kind: Literal["subject_access"] | None
    datasets: list[str]


class DatasetView(BaseModel):
    """A dataset, or a bundle of datasets. ``error`` is the reason why it cannot be exported at the moment.

    ``owner`` and ``time`` are null if the dataset does not show these columns. ``has_owner`` means that rows
    belong to users, so scope `own` is possible. ``has_time`` means that schedules can have windows.
    ``scopes`` are the scopes that you can use, and ``formats`` the formats. ``label`` and ``labels`` (by
    language) are its names for people. ``max_rows`` limits the rows of an export, ``retention_days`` is how
    long files are kept. ``timezone`` is the time zone of its files, if a request names none; null means UTC.
    ``encrypt`` is `required` if its files must be encrypted.

    ``bundle`` is null for a dataset. A bundle has no columns of its own: its filters are those of its
    datasets, as in `{"ledger": {"kind": "proof"}}`.
    """

    name: str
    label: str | None = None
    labels: dict[str, str] = {}
    description: str
    owner: str | None
    time: str | None
    has_owner: bool = False
    has_time: bool = False
    scopes: list[str] = []
    timezone: str | None = None
    columns: list[ColumnView]
    formats: list[str] = []
    parameters: list[ParameterView] = []
    max_rows: int | None = None
    retention_days: float | None = None
    encrypt: Literal["required"] | None = None
    bundle: BundleView | None = None
    error: str | None = None


class FormatView(BaseModel):
    """A file format. ``options`` are the names of the options that requests for it can have."""

    name: str
    description: str
    media_type: str
    extension: str
    compressible: bool
    options: list[str] = []


class Catalogue(BaseModel):
    """All datasets and formats, and the destinations that you can send finished files to."""

    datasets: list[DatasetView]
    formats: list[FormatView]
    destinations: list[DestinationView] = []


@router.get(
    "",
    operation_id="listDatasets",
    response_model=Catalogue,
    responses=problem_responses(401, 500, 503),
)
async def list_datasets(services: InjectedServices, user: CurrentUser) -> Catalogue:
    """List the datasets and bundles, with columns and operators, and the formats.

    Columns and types come from the source databases.

    If a table is missing, or its database does not answer within 2 s, the dataset has an `error`.
    Only datasets and columns that your roles can see are listed, and bundles of which you can see each
    dataset.
    """
    visible = [dataset for dataset in services.datasets.values() if can_see(user, dataset)]
    return Catalogue(
        datasets=await asyncio.gather(*(_view(services, user, dataset) for dataset in visible)),
        formats=[
            FormatView(
                name=item.name,
                description=item.description,
                media_type=item.media_type,
                extension=item.extension,
                compressible=item.compressible,
                options=options_of(item),
            )
            for item in services.formats.values()
        ],
        destinations=destinations_for(services, user),
    )


async def _view(services: ApiServices, user: User, dataset: Dataset) -> DatasetView:
    """Return the dataset as the user sees it."""
    caller = caller_for(user, dataset)
    columns: tuple[Column, ...] = ()
    problem = None
    try:
        async with asyncio.timeout(CATALOGUE_SECONDS):
            tables = [await read_visible(services.catalog, item, caller) for item in members_of(dataset)]
        columns = () if isinstance(dataset, Bundle) else tables[0].columns
    except Rejected as error:
        problem = str(error)
    except (Retryable, TimeoutError):
        problem = (
            f"dataset {dataset.name!r} cannot be read at the moment: its source database does not answer; "
            "requested exports wait until it does"
        )
    shown = {item.name for item in columns}
    dataset = visible_dataset(dataset, caller)
    scopes = usable_scopes(dataset, caller)
    is_of_one_person = isinstance(dataset, Bundle) and dataset.kind is not None
    if user.can_export_all and not is_of_one_person:
        scopes.append(ALL)
    parameters = {name: item for one in members_of(dataset) for name, item in one.parameters.items()}
    retention = retention_of(dataset, services.settings.retention_days)
    return DatasetView(
        name=dataset.name,
        label=dataset.label,
        labels=dict(dataset.labels),
        description=dataset.description,
        owner=dataset.owner if dataset.owner in shown else None,
        time=dataset.time if dataset.time in shown else None,
        has_owner=has_own_rows(dataset),
        has_time=has_windows(dataset),
        scopes=scopes,
        columns=[_column_view(dataset, item) for item in columns],
        formats=allowed_formats(dataset, services.formats),
        parameters=[
            ParameterView(
                name=name,
                type=item.type,
                label=item.label,
                labels=dict(item.labels),
                choices=None if item.choices is None else list(item.choices),
                required=item.required,
                default=item.default,
                description=item.description,
            )
            for name, item in parameters.items()
        ],
        max_rows=min(filter(None, (dataset.max_rows, services.settings.max_rows)), default=None),
        retention_days=retention / timedelta(days=1),
        encrypt=dataset.encrypt,
        timezone=dataset.timezone,
        bundle=BundleView(kind=dataset.kind, datasets=[item.name for item in dataset.members])
        if isinstance(dataset, Bundle)
        else None,
        error=problem,
    )


def _column_view(dataset: Dataset, item: Column) -> ColumnView:
    settings = settings_of(dataset, item.name)
    return ColumnView(
        name=item.name,
        label=settings.label,
        labels=dict(settings.labels),
        type=item.type,
        kind=item.kind,
        nullable=item.nullable,
        operators=list(operators(item)),
        values=None if item.mask is not None else list(item.labels) or None,
        masked=item.mask is not None,
        format=settings.format,
    )
