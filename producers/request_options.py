"""The options of commands that describe an export, and the fields of a request that they stand for."""

from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID

import typer

from producers import arguments, completion

_EXPORT_TYPE = typer.Option(help="Name of the dataset, such as ledger", autocompletion=completion.datasets)
_FORMAT = typer.Option(
    "--format", help="Name of the file format, such as csv", autocompletion=completion.formats
)
ExportType = Annotated[str, _EXPORT_TYPE]
OptionalExportType = Annotated[str | None, _EXPORT_TYPE]
Format = Annotated[str, _FORMAT]
OptionalFormat = Annotated[str | None, _FORMAT]
Name = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT", help="Name for people, such as 'Ledger October', which the page and mails show"
    ),
]
Filters = Annotated[
    list[str] | None,
    typer.Option(
        "--filter",
        metavar="COLUMN[:OP]=VALUE",
        help="kind=proof, id>=5, id:in=5,7, created_at:gte=now-7d, in bundles ledger.kind=proof …; "
        "repeatable",
    ),
]
FiltersJson = Annotated[
    str | None, typer.Option("--filters", metavar="JSON", help='Such as {"id": {"gte": 5, "lt": 9}}')
]
Parameters = Annotated[
    list[str] | None,
    typer.Option(
        "--parameter", metavar="NAME=VALUE", help="Parameter of the dataset, such as region=emea; repeatable"
    ),
]
Columns = Annotated[
    list[str] | None, typer.Option(metavar="A,B,…", help="Columns, in this order. Default: all")
]
Scope = Annotated[
    str | None,
    typer.Option(
        help="own (default): the rows of the user; all: the rows of all users; or a scope of the dataset"
    ),
]
FormatOptions = Annotated[
    list[str] | None,
    typer.Option("--option", metavar="KEY=VALUE", help="Such as delimiter=; or header=false; repeatable"),
]
Compression = Annotated[str | None, typer.Option(help="none (default), gzip or zstd")]
Labels = Annotated[
    bool, typer.Option("--labels", help="Captions are the labels of the dataset, not the names of columns")
]
Language = Annotated[
    str | None, typer.Option(metavar="TAG", help="Language of the labels, such as de or pt-BR (BCP 47)")
]
Locale = Annotated[
    str | None,
    typer.Option(
        metavar="TAG", help="How csv, excel and pdf write numbers and dates, such as de-DE (BCP 47)"
    ),
]
SplitRows = Annotated[
    int | None, typer.Option("--split-rows", metavar="N", help="Write several files with N rows each")
]
SplitBytes = Annotated[
    str | None,
    typer.Option(
        "--split-bytes",
        metavar="SIZE",
        help="Write several files of at most this size, such as 500MB or 2GiB",
    ),
]
EncryptFor = Annotated[
    list[str] | None,
    typer.Option(
        "--encrypt-for",
        metavar="KEY",
        help="Encrypt the files for this public key (age1… or ssh-ed25519 …), or @FILE with keys, one per "
        "line; repeatable",
    ),
]
ZipPassword = Annotated[
    bool,
    typer.Option(
        "--zip-password", help="Put each file into a zip archive with a password; see `exporter password`"
    ),
]
Recipients = Annotated[
    list[str] | None,
    typer.Option(
        "--recipient",
        metavar="ADDRESS",
        help="Who gets a message when the export ends: a mail address, or slack: or teams: and the URL "
        "of an incoming webhook; repeatable",
    ),
]
Webhook = Annotated[str | None, typer.Option(metavar="URL", help="URL that is called when the export ends")]
Destination = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Send the finished files to this destination of the service too"),
]


@dataclass(frozen=True, slots=True)
class RequestTarget:
    """What is exported for whom. On a terminal the command asks for what is not given."""

    export_type: OptionalExportType = None
    file_format: OptionalFormat = None
    user_id: Annotated[str | None, typer.Option(help="User whose export it is")] = None


@dataclass(frozen=True, slots=True)
class ContentOptions:
    """What is exported, and how its files are written."""

    name: Name = None
    filters: Filters = None
    filters_json: FiltersJson = None
    parameters: Parameters = None
    columns: Columns = None
    scope: Scope = None
    format_options: FormatOptions = None
    compression: Compression = None
    labels: Labels = False
    language: Language = None
    locale: Locale = None
    split_rows: SplitRows = None
    split_bytes: SplitBytes = None
    encrypt_for: EncryptFor = None
    zip_password: ZipPassword = False

    def fields(self, timezone: str | None) -> dict[str, Any]:
        """Return the fields of a request; those that were not given are ``None``.

        Args:
            timezone: the time zone of the times in the files, for which each command has its own option.

        Raises:
            UsageError: an argument is invalid.
        """
        options = arguments.parse_options(
            self.format_options or (),
            self.compression,
            labels=self.labels,
            language=self.language,
            timezone=timezone,
            locale=self.locale,
        )
        return {
            "name": self.name,
            "filters": arguments.parse_filters(self.filters or (), self.filters_json) or None,
            "parameters": arguments.parse_parameters(self.parameters or ()) or None,
            "columns": arguments.parse_columns(self.columns or ()),
            "options": options or None,
            "split": arguments.parse_split(self.split_rows, self.split_bytes),
            "encrypt": arguments.parse_encrypt(self.encrypt_for or (), zip_password=self.zip_password),
            "scope": self.scope,
        }


@dataclass(frozen=True, slots=True)
class NotificationOptions:
    """Who gets a message when an export ends, and where its files are sent."""

    recipients: Recipients = None
    webhook: Webhook = None
    destination: Destination = None


@dataclass(frozen=True, slots=True)
class RequestOptions:
    """The options of requests that schedules do not have."""

    timezone: Annotated[
        str | None,
        typer.Option(
            metavar="ZONE",
            help="Time zone of the times in the file, such as Europe/Berlin. Default: the dataset's, or UTC",
        ),
    ] = None
    role: Annotated[
        list[str] | None,
        typer.Option(help="Role that the user has, for the rights of the dataset; repeatable"),
    ] = None
    claim: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE[,VALUE…]", help="Claim of the user, such as org=acme, for scopes; repeatable"
        ),
    ] = None
    priority: Annotated[str | None, typer.Option(help="high, normal (default) or low")] = None
    consistency: Annotated[
        str | None,
        typer.Option(
            help="Of a large export of several files: snapshot (default), all files have the data of one "
            "moment; part, each part of the export has its own"
        ),
    ] = None
    job_id: Annotated[UUID | None, typer.Option(help="Id of the job. The same id names the same job")] = None
