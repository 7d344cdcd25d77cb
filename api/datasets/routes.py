"""The call that lists datasets and formats."""

import asyncio

from fastapi import APIRouter
from pydantic import BaseModel

from api.auth.authenticator import CurrentUser
from api.errors import problem_responses
from api.services import ApiServices, InjectedServices
from stream_app.datasets.models import Dataset
from stream_app.exports.columns import Column
from stream_app.exports.filters import operators
from streaming_exporter.errors import Rejected

router = APIRouter(prefix="/exports/datasets", tags=["datasets"])


class ColumnView(BaseModel):
    """A column with the operators that filters can use. ``values`` are those of an enum."""

    name: str
    type: str
    kind: str
    nullable: bool
    operators: list[str]
    values: list[str] | None = None


class DatasetView(BaseModel):
    """A dataset. ``error`` is the reason why it cannot be exported at the moment.

    ``owner`` and ``time`` are null if the dataset does not show these columns. ``has_owner`` means that rows
    belong to users, so scope `own` is possible. ``has_time`` means that schedules can have windows.
    """

    name: str
    description: str
    owner: str | None
    time: str | None
    has_owner: bool = False
    has_time: bool = False
    columns: list[ColumnView]
    error: str | None = None


class FormatView(BaseModel):
    """A file format."""

    name: str
    description: str
    media_type: str
    extension: str
    compressible: bool


class Catalogue(BaseModel):
    """All datasets and formats."""

    datasets: list[DatasetView]
    formats: list[FormatView]


@router.get(
    "",
    operation_id="listDatasets",
    summary="List the datasets, with columns and operators, and the formats",
    response_model=Catalogue,
    responses=problem_responses(401, 500, 503),
)
async def list_datasets(services: InjectedServices, user: CurrentUser) -> Catalogue:
    """Columns and types come from the source database. If a table is missing, its dataset has an `error`."""
    return Catalogue(
        datasets=await asyncio.gather(*(_view(services, dataset) for dataset in services.datasets.values())),
        formats=[
            FormatView(
                name=item.name,
                description=item.description,
                media_type=item.media_type,
                extension=item.extension,
                compressible=item.compressible,
            )
            for item in services.formats.values()
        ],
    )


async def _view(services: ApiServices, dataset: Dataset) -> DatasetView:
    columns: tuple[Column, ...] = ()
    problem = None
    try:
        columns = (await services.catalog.table(dataset)).columns
    except Rejected as error:
        problem = str(error)
    shown = {item.name for item in columns}
    return DatasetView(
        name=dataset.name,
        description=dataset.description,
        owner=dataset.owner if dataset.owner in shown else None,
        time=dataset.time if dataset.time in shown else None,
        has_owner=dataset.owner is not None,
        has_time=dataset.time is not None,
        columns=[
            ColumnView(
                name=item.name,
                type=item.type,
                kind=item.kind,
                nullable=item.nullable,
                operators=list(operators(item)),
                values=list(item.labels) or None,
            )
            for item in columns
        ],
        error=problem,
    )
