"""Models of the ``data`` of events: requests, ticks, lifecycle events. Does no I/O."""

import re
from typing import Annotated, Any, Literal, Self, TypeVar
from uuid import UUID

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

from streaming_exporter.errors import Rejected, Unreadable
from streaming_exporter.json_values import MAX_LEVELS, check_json_values, read_iterators
from streaming_exporter.traceparent import Traceparent
from streaming_exporter.validation import explained, field_of, sentence, with_value

Model = TypeVar("Model", bound=BaseModel)

Word = Annotated[str, StringConstraints(min_length=1, max_length=100)]
SCOPE = explained(
    r"^[A-Za-z0-9][A-Za-z0-9_-]{0,99}$", "a name of at most 100 letters, digits, _ and -, without spaces"
)
LANGUAGE = explained(
    r"^[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8}){0,4}$", "the tag of a language or locale, such as de or de-AT"
)
ZONE = explained(r"^[A-Za-z][A-Za-z0-9_+/-]{0,99}$", "the name of a time zone, such as Europe/Berlin")
DELIMITER = explained(r"^[,;|\t:^~]$", "one of , ; | tab : ^ ~")
NULL_TEXT = explained(
    r"^[A-Za-z0-9_\\<>()\-./]{0,20}$", "at most 20 characters of letters, digits and _ \\ < > ( ) - . /"
)
Scope = Annotated[str, StringConstraints(pattern=SCOPE)]
DestinationName = Annotated[str, StringConstraints(pattern=SCOPE)]
LanguageTag = Annotated[str, StringConstraints(pattern=LANGUAGE)]
ZoneName = Annotated[str, StringConstraints(pattern=ZONE)]
MAX_CLAIM_LENGTH = 1000
"""Characters of one value of a claim."""
MAX_CLAIM_VALUES = 200
"""Values of one claim."""
ClaimText = Annotated[str, StringConstraints(max_length=MAX_CLAIM_LENGTH)]
Claims = dict[Word, ClaimText | Annotated[list[ClaimText], Field(max_length=MAX_CLAIM_VALUES)]]
CLAIMS = "claims"
"""The field whose values no error repeats: errors are in records of jobs, in events, mails and logs."""
UserId = Annotated[str, StringConstraints(min_length=1, max_length=255)]

MAX_NAME_LENGTH = 200
"""Characters of the name of an export."""

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
"""Control characters, and the two characters that separate lines and paragraphs."""


def _printable(name: str) -> str:
    """Return ``name`` if it is one line of text."""
    found = _CONTROL.search(name)
    if found is not None:
        raise PydanticCustomError(
            "name",
            "it must be one line without control characters, and {code} is one",
            {"code": f"U+{ord(found[0]):04X}"},
        )
    return name


def _blank_is_none(name: object) -> object:
    return None if isinstance(name, str) and not name.strip() else name


Name = Annotated[
    Annotated[
        str,
        StringConstraints(strip_whitespace=True, max_length=MAX_NAME_LENGTH),
        AfterValidator(_printable),
    ]
    | None,
    BeforeValidator(_blank_is_none),
    Field(
        description="Name for people, such as `Ledger October`: one line of at most 200 characters, without "
        "control characters"
    ),
]
"""The name of an export or of a schedule. A blank name is none."""


class Payload(BaseModel):
    """Base of all models of ``data``; unknown fields are ignored. Errors of pydantic do not show values."""

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)


class RequestIdentity(Payload):
    """The fields that every request needs: with them a rejected request becomes a failed job."""

    user_id: UserId
    export_type: Word
    format: Word


class CsvOptions(Payload):
    """Options of ``csv``; other formats ignore them."""

    delimiter: Annotated[str, StringConstraints(pattern=DELIMITER)] = ","
    header: bool = True
    bom: bool = False
    null: Annotated[str, StringConstraints(pattern=NULL_TEXT)] = ""
    guard_formulas: bool = True


class PdfOptions(Payload):
    """Options of ``pdf``; other formats ignore them."""

    title: Annotated[str, StringConstraints(max_length=200)] | None = None
    page_size: Literal["A4", "A3", "LETTER", "LEGAL", "TABLOID"] = "A4"


class Options(CsvOptions, PdfOptions):
    """All fields of ``options``; each format reads its own.

    ``headers``: whether captions are the names of columns or their labels. ``language`` chooses the labels
    (BCP 47). ``timezone`` is the time zone of times in the file (IANA). ``locale`` chooses how numbers and
    dates are written, such as ``de-DE``.
    """

    compression: Literal["none", "gzip", "zstd"] = "none"
    headers: Annotated[
        Literal["names", "labels"],
        Field(description="Captions: the names of columns, or their labels in the datasets file"),
    ] = "names"
    language: Annotated[
        LanguageTag | None,
        Field(
            description="Language of the labels (BCP 47), such as `de-AT`. Without labels in it: those in "
            "`de`, then those without a language, then names"
        ),
    ] = None
    timezone: Annotated[
        ZoneName | None,
        Field(
            description="Time zone of the times in the file (IANA), such as `Europe/Berlin`. csv, json and "
            "ndjson have the offset; parquet keeps instants. Default: that of the dataset, else UTC"
        ),
    ] = None
    locale: Annotated[
        LanguageTag | None,
        Field(
            description="How csv, excel and pdf write numbers and dates, such as `de-DE`. With a decimal "
            "comma the delimiter of csv is `;`, unless `delimiter` is given. Other formats ignore it"
        ),
    ] = None


MIN_SPLIT_BYTES = 2**20
"""The smallest ``split.bytes``: 1 MiB."""

MAX_SPLIT = 10**15
"""The largest number in ``split``."""


class Split(Payload):
    """How the rows are divided between several files. Exactly one field is set.

    ``rows``: each file has this number of rows, and the last one has the rest; in a large export, whose parts
    are read by several workers, the last file of each part. ``bytes``: no file is larger, unless a
    single row is.
    """

    rows: Annotated[int, Field(strict=True, ge=1, le=MAX_SPLIT)] | None = None
    bytes: Annotated[int, Field(strict=True, ge=MIN_SPLIT_BYTES, le=MAX_SPLIT)] | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.rows is None) == (self.bytes is None):
            raise PydanticCustomError(
                "split",
                "it must have exactly one of rows (at least 1) and bytes (at least {least})",
                {"least": MIN_SPLIT_BYTES},
            )
        return self


MAX_AGE_RECIPIENTS = 20
"""Public keys that one file can be encrypted for."""

AgeRecipient = Annotated[
    str,
    StringConstraints(strip_whitespace=True, max_length=2_000),
    Field(description="A public key: `age1…`, `ssh-ed25519 …` or `ssh-rsa …`"),
]


class Encrypt(Payload):
    """How the files are encrypted. Exactly one field is set.

    ``age``: each holder of a private key of these public keys can decrypt the files (age-encryption.org/v1).
    ``zip_password``: each file is in a zip archive (AES-256) with a password that the service makes. The API
    shows it once to the user of the job.
    """

    age: Annotated[list[AgeRecipient], Field(min_length=1, max_length=MAX_AGE_RECIPIENTS)] | None = None
    zip_password: Literal[True] | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.age is None) == (self.zip_password is None):
            raise PydanticCustomError(
                "encrypt", "it must have exactly one of age (a list of public keys) and zip_password (true)"
            )
        return self


def _not_too_deep(values: dict[str, Any]) -> dict[str, Any]:
    """Return ``values`` if programs that read JSON with a limit of levels can read them, too."""
    level: list[Any] = [values]
    for _ in range(MAX_LEVELS):
        inner = (item.values() if isinstance(item, dict) else item for item in level)
        level = [value for item in inner for value in item if isinstance(value, dict | list | tuple)]
        if not level:
            return values
    raise PydanticCustomError(
        "too_deep", "it has too many levels of objects and lists; allowed: {limit}", {"limit": MAX_LEVELS}
    )


Values = Annotated[dict[str, Any], Field(max_length=50), AfterValidator(_not_too_deep)]
"""Values of filters or parameters, by name."""
SentValues = Annotated[Values, BeforeValidator(read_iterators), AfterValidator(check_json_values)]
"""The same in a request, where JSON has to have them. Iterators are read."""


class ExportRequest(RequestIdentity):
    """``data`` of ``export.requested``: the rows to export, the format, the recipients.

    ``consistency`` is about large exports with ``split``, whose parts are read by several workers:
    ``snapshot`` gives all files the data of one moment, ``part`` gives each part a moment of its own.

    ``scope`` is ``own``, ``all`` or a scope of the dataset. ``parameters`` are those of a dataset's query.
    ``claims`` are facts about the user, such as their organisation and ``roles``, which the rights of the
    dataset depend on; the service trusts them as it trusts ``user_id``.

    ``destination`` is the name of a place of the datasets file that the finished files are sent to.

    ``export_type`` is the name of a dataset, or of a bundle of datasets. The ``filters`` of a bundle are
    those of its datasets, by their names; it has no ``columns`` and no ``split``.

    ``name`` is for people: the page, mails and commands show it.
    """

    name: Name = None
    filters: SentValues = Field(default_factory=dict)
    columns: list[str] | None = Field(default=None, min_length=1, max_length=1600)
    options: Options = Options()
    split: Split | None = None
    consistency: Literal["snapshot", "part"] = "snapshot"
    encrypt: Encrypt | None = None
    scope: Scope = "own"
    parameters: SentValues = Field(default_factory=dict)
    claims: Claims = Field(default_factory=dict, max_length=50, repr=False)
    priority: Literal["high", "normal", "low"] = "normal"
    recipients: list[str] = Field(default_factory=list, max_length=50, repr=False)
    webhook: str | None = Field(default=None, repr=False)
    destination: Annotated[
        DestinationName | None,
        Field(description="Name of a destination that the finished files are also sent to"),
    ] = None

    @classmethod
    def parse(cls, data: dict[str, Any]) -> Self:
        """Validate ``data``; fields that are ``None`` count as absent.

        Raises:
            Rejected: with the field, what is wrong and what is allowed.
        """
        try:
            return cls.model_validate({name: value for name, value in data.items() if value is not None})
        except ValidationError as error:
            field, message = first_problem(error)
            raise Rejected(message, field=field) from error


class TickData(Payload):
    """``data`` of ``schedule.tick``: the minute that the tick stands for."""

    at: AwareDatetime


class CancelData(Payload):
    """``data`` of ``export.cancel_requested``; ``by`` is the user who cancelled, where that is known."""

    by: str | None = None


class DownloadData(Payload):
    """``data`` of ``export.downloaded``; ``user_id`` owns the job, ``by`` received the link."""

    job_id: UUID
    user_id: str
    by: str


class JobError(Payload):
    """The reason why a job failed: a stable code, and a sentence for the user."""

    code: str
    message: str


class FileData(Payload):
    """One of several files. ``file_size`` is bytes."""

    file_name: str
    key: str
    content_type: str
    row_count: int
    file_size: int
    sha256: str


class LifecycleData(RequestIdentity):
    """``data`` of every ``export.*`` event on ``exports.events``.

    ``file_size`` is bytes. ``attempt`` counts from 1; 0 means that no attempt was made yet. A job with
    several files has ``file_count`` and, up to 1,000 files, ``files``; ``row_count`` and ``file_size`` are
    totals, and ``key``, ``file_name``, ``content_type`` and ``sha256`` are those of ``manifest.json``.
    ``name`` is that of the request.
    """

    job_id: UUID
    name: str | None = None
    attempt: int = Field(default=0, ge=0)
    status: Word
    row_count: int | None = None
    estimated_rows: int | None = None
    file_size: int | None = None
    sha256: str | None = None
    bucket: str | None = None
    key: str | None = None
    content_type: str | None = None
    file_name: str | None = None
    file_count: int | None = None
    files: list[FileData] | None = None
    as_of: AwareDatetime | None = None
    started_at: AwareDatetime | None = None
    completed_at: AwareDatetime | None = None
    expires_at: AwareDatetime | None = None
    manifest: dict[str, Any] | None = None
    error: JobError | None = None
    traceparent: Traceparent = Field(default=None, exclude=True)
    """The trace of the job; the event carries it in its envelope, not in ``data``."""


def read(model: type[Model], content: object, where: str = "") -> Model:
    """Validate ``content`` as ``model``.

    Args:
        where: path of ``content`` in the event, which begins each field's name in an error.

    Raises:
        Unreadable: with the field and what is wrong with it.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        field, message = first_problem(error)
        raise Unreadable(f"{'.'.join(filter(None, (where, field)))}: {message}") from error


SECRETS = {(CLAIMS,), ("recipients",), ("webhook",)}
"""Fields whose values no error shows. The URLs of recipients and of the webhook can be secrets."""


def first_problem(error: ValidationError) -> tuple[str, str]:
    """Return the field's path and the message of the first error."""
    problem = error.errors(include_url=False)[0]
    hidden = problem["loc"][:1] in SECRETS
    return field_of(problem), sentence(problem) if hidden else with_value(problem)
