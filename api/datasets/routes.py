"""What can be exported, and as what."""

import asyncio

from fastapi import APIRouter
from pydantic import BaseModel

from api.auth.authenticator import CurrentUser
from api.errors import problem_responses
from api.services import ApiServices, InjectedServices
from stream_app.exports.columns import Column
from stream_app.exports.datasets import Dataset
from stream_app.exports.filters import operators
from streaming_exporter.errors import Rejected

router = APIRouter(prefix="/exports/datasets", tags=["datasets"])


class ColumnView(BaseModel):
    """A column, and what filters may do with it; ``values`` are those of an enum."""

    name: str
    type: str
    kind: str
    nullable: bool
    operators: list[str]
    values: list[str] | None = None


class DatasetView(BaseModel):
    """Something that can be exported; ``error`` says why it cannot be at the moment.

    ``owner`` and ``time`` are null where these columns are not shown. ``has_owner`` and ``has_time`` say that
    there are such columns: then there are rows that are one's own, and windows.
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
    """A way to write a file."""

    name: str
    description: str
    media_type: str
    extension: str
    compressible: bool


class Catalogue(BaseModel):
    """Everything that can be asked for."""

    datasets: list[DatasetView]
    formats: list[FormatView]


@router.get(
    "",
    operation_id="listDatasets",
    summary="Datasets with their columns and operators, and the formats",
    response_model=Catalogue,
    responses=problem_responses(401, 500, 503),
)
async def list_datasets(services: InjectedServices, user: CurrentUser) -> Catalogue:
    """Columns and types are the source database's; a dataset whose table is missing says so in `error`."""
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
