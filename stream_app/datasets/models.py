"""Models of the datasets file: datasets with their columns, parameters, scopes and sessions, and sources."""

import re
from collections.abc import Mapping
from datetime import date, time
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

from stream_app.datasets.mask_names import check_mask
from stream_app.datasets.parameters import check_parameter
from stream_app.datasets.query_text import QueryTextError, parse_query
from stream_app.time_zones import check_zone_name
from streaming_exporter.errors import Rejected
from streaming_exporter.validation import explained

DEFAULT_SOURCE = "default"
"""The source of datasets that name none: the database of ``EXPORTER_SOURCE_DATABASE_URL``."""

_SETTING = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*(\.[A-Za-z_][A-Za-z0-9_$]*)+")
"""Names of settings that PostgreSQL leaves to applications. Those without a dot change how it works."""

OWN_SETTINGS = "streaming_exporter."
"""The beginning of the names of the service's own settings, such as that with the keys of hashes."""


def _is_no_list_of_roles(claim: str) -> str:
    if claim == "roles":
        raise ValueError("the claim roles has only the roles that the dataset names; use another claim")
    return claim


NAME = explained(
    r"^[A-Za-z0-9][A-Za-z0-9_-]{0,99}$", "a name of at most 100 letters, digits, _ and -, without spaces"
)
LANGUAGE = explained(r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$", "the tag of a language, such as de or de-AT")
VARIABLE = explained(
    r"^[A-Za-z_][A-Za-z0-9_]{0,199}$", "the name of an environment variable, such as CRM_DATABASE_URL"
)
Identifier = Annotated[str, StringConstraints(min_length=1, max_length=63)]
Name = Annotated[str, StringConstraints(pattern=NAME)]
Role = Annotated[str, StringConstraints(min_length=1, max_length=255)]
Claim = Annotated[str, StringConstraints(min_length=1, max_length=100), AfterValidator(_is_no_list_of_roles)]
Language = Annotated[str, StringConstraints(pattern=LANGUAGE)]
Label = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Labels = Mapping[Language, Label]
"""Labels by language (BCP 47)."""


class Entry(BaseModel):
    """Base of all models: an unknown key is an error, because a misspelt right would protect nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ColumnSettings(Entry):
    """What the datasets file says about a column.

    Attributes:
        label: the caption for people.
        labels: captions in other languages.
        format: the number format of Excel, such as ``#,##0.00``.
        mask: the name of a mask, or an SQL expression that replaces the value.
        unmasked_for: roles that see the value itself.
        roles: roles that see the column; for others it does not exist. Without roles everybody sees it.
    """

    label: Label | None = None
    labels: Labels = Field(default_factory=dict)
    format: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = None
    mask: Annotated[str, StringConstraints(min_length=1, max_length=2000)] | None = None
    unmasked_for: tuple[Role, ...] = ()
    roles: tuple[Role, ...] | None = Field(None, min_length=1)

    @field_validator("mask")
    @classmethod
    def _is_mask(cls, value: str | None) -> str | None:
        if value is not None:
            check_mask(value)
        return value

    @model_validator(mode="after")
    def _masks_something(self) -> Self:
        if self.unmasked_for and self.mask is None:
            raise ValueError("unmasked_for needs a mask; set mask, or remove unmasked_for")
        return self


ParameterType = Literal[
    "text",
    "integer",
    "bigint",
    "numeric",
    "float",
    "boolean",
    "date",
    "time",
    "timestamp",
    "timestamptz",
    "uuid",
]


class Parameter(Entry):
    """A parameter of a dataset's query: ``:name`` in its text.

    Attributes:
        type: the type of its values.
        choices: the allowed values; ``None`` allows all values of the type.
        required: whether a request must have it.
        default: the value of requests without it. Without a default it is NULL.
    """

    type: ParameterType = "text"
    label: Label | None = None
    labels: Labels = Field(default_factory=dict)
    description: str = ""
    choices: tuple[Any, ...] | None = Field(None, min_length=1, max_length=1000)
    required: bool = False
    default: Any = None

    @field_validator("choices", "default")
    @classmethod
    def _as_in_requests(cls, value: Any) -> Any:
        """Write dates and times as requests do: as texts. TOML has types of its own for them."""
        if isinstance(value, tuple):
            return tuple(map(cls._as_in_requests, value))
        return value.isoformat() if isinstance(value, date | time) else value


class Scope(Entry):
    """A choice of rows: those in which ``column`` has the value of the caller's ``claim``.

    Attributes:
        column: the column.
        claim: path of the claim; ``sub`` is the user's id.
        roles: roles that can use the scope. Without roles everybody can.
    """

    column: Identifier
    claim: Claim = "sub"
    roles: tuple[Role, ...] | None = Field(None, min_length=1)


class SessionValue(Entry):
    """The value of a setting in the transactions of an export: that of the caller's ``claim``."""

    claim: Claim


class SourceSettings(Entry):
    """A source database besides the default one.

    Attributes:
        name: its name in the file.
        url_env: the environment variable with its URL.
        connections: the largest number of connections of each process, at least one for rows and one for
            estimates; ``None`` for the number that the default source has.
    """

    name: Name
    url_env: Annotated[str, StringConstraints(pattern=VARIABLE)]
    connections: Annotated[int, Field(ge=2, le=1000)] | None = None


class Dataset(Entry):
    """A table, view or query that can be exported.

    Attributes:
        source: the name of its source database.
        table: ``name`` or ``schema.name``. Exactly one of table and query is set.
        query: a SELECT, with parameters as ``:name``.
        label: the name for people.
        owner: the column that scope ``own`` compares with the user's id.
        time: the column for windows.
        deleted_at: the timestamp column that tells when a row was deleted. Runs with a window write the
            deletions beside the rows.
        columns: the columns that are exported, in this order (default: all).
        column_settings: labels, masks and rights of single columns.
        order: the columns that the rows are ordered by. By default there is no order: the rows come as
            PostgreSQL reads them, and it never sorts a table.
        formats: the allowed formats (default: all).
        max_rows: rows of one export.
        retention_days: days until files expire.
        encrypt: ``required``: every file must be encrypted.
        roles: roles that can ask for the dataset; for others it does not exist. Without roles everybody can.
        timezone: the time zone of times in files (default: UTC).
        scopes: choices of rows besides ``own`` and ``all``.
        session: settings of the source's transactions, for row-level security.
        template: an Excel workbook that the format ``excel`` fills.
        template_header: the row of its captions, if it cannot be found by itself.
    """

    name: Name
    source: Name = DEFAULT_SOURCE
    table: Annotated[str, StringConstraints(min_length=1, max_length=127)] | None = None
    query: Annotated[str, StringConstraints(min_length=1, max_length=100_000)] | None = None
    description: str = ""
    label: Label | None = None
    labels: Labels = Field(default_factory=dict)
    owner: Identifier | None = None
    time: Identifier | None = None
    deleted_at: Identifier | None = None
    columns: tuple[Identifier, ...] | None = Field(None, min_length=1)
    column_settings: Mapping[Identifier, ColumnSettings] = Field(default_factory=dict)
    order: tuple[Identifier, ...] | None = None
    formats: tuple[Name, ...] | None = Field(None, min_length=1)
    max_rows: Annotated[int, Field(ge=1)] | None = None
    retention_days: Annotated[float, Field(gt=0, le=3650)] | None = None
    encrypt: Literal["required"] | None = None
    roles: tuple[Role, ...] | None = Field(None, min_length=1)
    timezone: str | None = None
    parameters: Mapping[Identifier, Parameter] = Field(default_factory=dict)
    scopes: Mapping[Name, Scope] = Field(default_factory=dict)
    session: Mapping[str, SessionValue] = Field(default_factory=dict)
    template: Path | None = None
    template_header: Annotated[int, Field(ge=1, le=1_048_575)] | None = None

    @field_validator("timezone")
    @classmethod
    def _is_a_zone(cls, name: str | None) -> str | None:
        if name is not None:
            try:
                check_zone_name(name, "")
            except Rejected as error:
                raise ValueError(str(error)) from error
        return name

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if (self.table is None) == (self.query is None):
            raise ValueError("it must have exactly one of table and query")
        if self.deleted_at is not None and self.time is None:
            raise ValueError("deleted_at needs time: deletions are written for the windows of schedules")
        if self.deleted_at is not None and self.deleted_at == self.time:
            raise ValueError("deleted_at and time must be two columns")
        if self.parameters and self.query is None:
            raise ValueError("parameters need a query; only a query has places for them")
        if self.query is not None:
            try:
                parse_query(self.query, self.parameters)
            except QueryTextError as error:
                raise ValueError(f"query: {error}") from error
        for name, parameter in self.parameters.items():
            check_parameter(name, parameter)
        for name in self.session:
            if not _SETTING.fullmatch(name):
                raise ValueError(
                    f"session.{name}: its name must have a dot, such as app.tenant: the others belong to "
                    "PostgreSQL"
                )
            if name.casefold().startswith(OWN_SETTINGS):
                raise ValueError(
                    f"session.{name}: names that begin with {OWN_SETTINGS} belong to the service; use "
                    "a prefix of your own, such as app."
                )
        if len({name.casefold() for name in self.session}) < len(self.session):
            raise ValueError(
                "session: two names differ only in capital letters, which are the same setting for PostgreSQL"
            )
        if "all" in self.scopes:
            raise ValueError("scopes.all is reserved: scope all gives every row")
        return self
