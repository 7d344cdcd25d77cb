"""What events carry in ``data``: requests, ticks, what happened to a job. Pure."""

from typing import Annotated, Any, Literal, Self, TypeVar
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from streaming_exporter.errors import Rejected, Unreadable
from streaming_exporter.traceparent import Traceparent

Model = TypeVar("Model", bound=BaseModel)

Word = Annotated[str, StringConstraints(min_length=1, max_length=100)]
UserId = Annotated[str, StringConstraints(min_length=1, max_length=255)]


class Payload(BaseModel):
    """Base of everything in ``data``: unknown fields are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class RequestIdentity(Payload):
    """The part of a request without which there is nobody to tell about a failure."""

    user_id: UserId
    export_type: Word
    format: Word


class CsvOptions(Payload):
    """Options that only ``csv`` looks at."""

    delimiter: Annotated[str, StringConstraints(pattern=r"^[,;|\t:^~]$")] = ","
    header: bool = True
    bom: bool = False
    null: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_\\<>()\-./]{0,20}$")] = ""
    guard_formulas: bool = True


class PdfOptions(Payload):
    """Options that only ``pdf`` looks at."""

    title: Annotated[str, StringConstraints(max_length=200)] | None = None
    page_size: Literal["A4", "A3", "LETTER", "LEGAL", "TABLOID"] = "A4"


class Options(CsvOptions, PdfOptions):
    """Everything under ``options``; each format reads what concerns it."""

    compression: Literal["none", "gzip", "zstd"] = "none"


class ExportRequest(RequestIdentity):
    """``data`` of ``export.requested``: which rows, as what, for whom."""

    filters: dict[str, Any] = Field(default_factory=dict, max_length=50)
    columns: list[str] | None = Field(None, min_length=1, max_length=1600)
    options: Options = Options()
    scope: Literal["own", "all"] = "own"
    priority: Literal["high", "normal", "low"] = "normal"
    recipients: list[str] = Field(default_factory=list, max_length=50)
    webhook: str | None = None

    @classmethod
    def parse(cls, data: dict[str, Any]) -> Self:
        """Validate ``data`` whose identity is known to be sound.

        Raises:
            Rejected: naming the field, what was wrong and what is allowed.
        """
        try:
            return cls.model_validate({name: value for name, value in data.items() if value is not None})
        except ValidationError as error:
            field, message = _first_problem(error)
            raise Rejected(message, field=field) from error


class TickData(Payload):
    """``data`` of ``schedule.tick``: the minute it stands for."""

    at: AwareDatetime


class CancelData(Payload):
    """``data`` of ``export.cancel_requested``: ``by`` whom the job's end was asked for, where it is known."""

    by: str | None = None


class DownloadData(Payload):
    """``data`` of ``export.downloaded``: whose job it is, and ``by`` whom its file was asked for."""

    job_id: UUID
    user_id: str
    by: str


class JobError(Payload):
    """Why a job failed: a stable code, and a sentence for the user."""

    code: str
    message: str


class LifecycleData(RequestIdentity):
    """``data`` of every ``export.*`` event on ``exports.events``.

    ``file_size`` is bytes, ``attempt`` counts from 1 (0: no attempt was made yet).
    """

    job_id: UUID
    attempt: int = Field(0, ge=0)
    status: Word
    row_count: int | None = None
    estimated_rows: int | None = None
    file_size: int | None = None
    sha256: str | None = None
    bucket: str | None = None
    key: str | None = None
    content_type: str | None = None
    file_name: str | None = None
    as_of: AwareDatetime | None = None
    started_at: AwareDatetime | None = None
    completed_at: AwareDatetime | None = None
    expires_at: AwareDatetime | None = None
    manifest: dict[str, Any] | None = None
    error: JobError | None = None
    traceparent: Traceparent = Field(None, exclude=True)
    """The trace that the job belongs to; it travels in the envelope."""


def read(model: type[Model], content: object, where: str = "") -> Model:
    """``content`` as ``model``.

    Raises:
        Unreadable: naming the field, below ``where``, and what is wrong with it.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        field, message = _first_problem(error)
        raise Unreadable(f"{'.'.join(filter(None, (where, field)))}: {message}") from error


def _first_problem(error: ValidationError) -> tuple[str, str]:
    """The field path and the message of the first thing pydantic complains about."""
    problem = error.errors(include_url=False)[0]
    message = problem["msg"][0].lower() + problem["msg"][1:]
    if problem["type"] != "missing":
        message += f", got {problem['input']!r:.100}"
    return ".".join(map(str, problem["loc"])), message
