"""The settings of all processes. The variable of a setting is ``EXPORTER_`` and the name of its field.

No other module reads the environment. The types of :mod:`stream_app.setting_types` check the values.
"""

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, SecretStr, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from stream_app import database_url
from stream_app.delivery_settings import DeliverySettings
from stream_app.setting_sources import Variables, environment_variables, file_variables, is_secret
from stream_app.setting_types import (
    Bucket,
    DatabaseUrl,
    Days,
    Endpoint,
    FileToWrite,
    Host,
    KeyPrefix,
    Networks,
    Origins,
    Port,
    Region,
    Seconds,
    SecondsOrNone,
    WebUrl,
    is_local_url,
)
from stream_app.sign_in_settings import SignInSettings
from streaming_exporter.kafka_settings import KafkaSettings
from streaming_exporter.payloads import MIN_SPLIT_BYTES
from streaming_exporter.setting_types import Count, Text, in_case

LARGEST_FILE = 5 * 2**40 - 2**36
"""Default and limit of ``split_max_bytes``: S3's 5 TiB for one object, with a margin of 64 GiB."""


class Settings(BaseSettings, DeliverySettings, SignInSettings, KafkaSettings):
    """Settings of every process; see docs/settings.md.

    Sizes are in bytes. Times are in seconds unless the name contains another unit.

    An empty or blank variable counts as not set. Every secret can also come from a file, which the variable
    with ``_FILE`` at its end names; see :class:`~streaming_exporter.file_secret.FileSecret`.

    Raises:
        pydantic.ValidationError: a variable has a value that its field does not allow.
        ValueError: a file that a variable names cannot be read.
    """

    model_config = SettingsConfigDict(
        env_prefix="EXPORTER_", extra="ignore", frozen=True, hide_input_in_errors=True
    )

    CAN_BE_EMPTY: ClassVar[frozenset[str]] = frozenset({"schedule_all_users"})
    """Settings whose empty value has a meaning of its own. Here: no user."""

    kafka_group: Text = Field("exporter", description="Consumer group of the workers")
    database_url: DatabaseUrl = Field(
        SecretStr("postgresql://exporter:exporter@127.0.0.1:5432/exporter"),
        description="PostgreSQL database with the service's own tables",
    )
    source_database_url: DatabaseUrl | None = Field(
        None, description="PostgreSQL database with the rows to export. Default: DATABASE_URL"
    )
    datasets_file: Path | None = Field(
        None, description="TOML file, or folder of such files, with the datasets and further sources"
    )

    s3_endpoint: Endpoint = Field(
        "http://127.0.0.1:9000", description="Object store, as the worker and the API reach it"
    )
    s3_public_endpoint: Endpoint | None = Field(
        None, description="Object store, as users reach it: the host in download links. Default: S3_ENDPOINT"
    )
    s3_access_key: SecretStr | None = Field(
        None,
        description="Access key. Default: `exporter` if S3_SECRET_KEY is set, otherwise the credentials that "
        "AWS's provider chain finds",
    )
    s3_secret_key: SecretStr | None = Field(None, description="Secret key of the access key")
    s3_bucket: Bucket = Field(
        "exports", description="Bucket for the files. The service creates it if it does not exist"
    )
    s3_secure: bool = Field(False, description="Whether to use TLS if S3_ENDPOINT has no scheme")
    s3_region: Region = Field("us-east-1", description="Region that requests are signed for")

    s3_key_prefix: KeyPrefix = Field(
        "", description="Folder in the bucket for everything that the service stores, such as `exporter`"
    )
    s3_sse: Annotated[Literal["none", "s3", "kms"], in_case(str.lower)] = Field(
        "none", description="Encryption that the store applies: `none`, `s3` (SSE-S3) or `kms` (SSE-KMS)"
    )
    s3_sse_kms_key: Text | None = Field(
        None, description="Id or ARN of the key for `kms`. Default: the key of the bucket or of the account"
    )

    public_url: WebUrl = Field("http://127.0.0.1:8000", description="URL at which users reach the API")
    cors_origins: Origins = Field(
        "",
        description="Origins of web pages that are allowed to call the API, separated by commas. `*` allows "
        "all",
    )

    trusted_proxies: Networks = Field(
        "",
        description="Addresses or networks of proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are "
        "trusted, separated by commas",
    )
    api_docs: bool = Field(True, description="Whether the API serves `/docs` and `/openapi.json`")
    probe_details: Annotated[Literal["auto", "open", "token"], in_case(str.lower)] = Field(
        "auto",
        description="Who can read `/metrics` and the parts in `/readyz` on the API's port. `open`: everybody."
        " `token`: operators. `auto`: everybody while only this machine can reach the API, "
        "otherwise operators",
    )
    user_call_limit: Count = Field(
        512,
        description="Limit of concurrent calls of one user, without those that wait for the end of a job",
    )
    user_stream_limit: Count = Field(20, description="Limit of open event streams of one user")
    user_wait_limit: Count = Field(
        100,
        description="Limit of calls of one user in one API process that wait for the end of a job (Prefer: "
        "wait). A further call does not wait",
    )
    api_call_limit: Count = Field(
        1024,
        description="Limit of concurrent calls of all users in one API process, without those that wait for "
        "the end of a job. Calls that wait for earlier calls of their user have the same limit of their own",
    )
    api_stream_limit: Count = Field(1000, description="Limit of open event streams in one API process")
    api_wait_limit: Count = Field(
        1000,
        description="Limit of calls in one API process that wait for the end of a job (Prefer: wait). A "
        "further call does not wait",
    )
    api_connection_limit: Count = Field(2000, description="Limit of open connections in one API process")

    worker_slots: Count = Field(4, le=1_000, description="Number of exports that one worker runs at a time")
    source_streams: Count = Field(
        2,
        le=64,
        description="Number of connections to the source database that read one large export at a time",
    )
    parallel_min_bytes: int = Field(
        32 * 2**20,
        ge=0,
        le=2**50,
        description="Estimated bytes of rows from which on an export is read over several connections",
    )
    user_slots: Count = Field(2, description="Number of exports of one user that run at a time")
    user_pending_limit: Count = Field(
        100,
        description="Limit of unfinished jobs of one user. The API refuses further requests. Runs of "
        "schedules that wait for late rows do not count",
    )
    lease_seconds: Seconds = Field(
        30,
        description="Lease of a job. If its worker does not renew the lease in this time, another worker "
        "takes the job over",
    )
    max_attempts: Count = Field(5, description="Number of failed attempts after which a job has failed")
    drain_seconds: Seconds = Field(
        20, description="Time that running exports have to finish when a worker stops"
    )
    export_timeout_seconds: Seconds = Field(
        3600,
        description="Time limit of one attempt: of its SQL statement, or of all streams and parts",
    )
    max_rows: Annotated[int, Field(ge=1, le=10**15)] | None = Field(
        None, description="Limit of rows of one export. Default: no limit"
    )
    pdf_max_rows: Count = Field(100_000, description="Limit of rows of a PDF")
    pdf_max_bytes: Count = Field(256 * 2**20, description="Limit of bytes of text in the rows of a PDF")
    split_max_bytes: int = Field(
        LARGEST_FILE,
        ge=MIN_SPLIT_BYTES,
        le=LARGEST_FILE,
        description="Size of the largest file, in bytes. A larger export is divided into several files",
    )
    split_max_files: Count = Field(
        10_000, le=99_999, description="Limit of files of one export. An export with more files fails"
    )
    parts_min_bytes: Count = Field(
        2**30,
        description="Exports with `split` and at least this many bytes of rows are divided into parts, which "
        "all workers share",
    )
    user_schedule_limit: Count = Field(100, description="Limit of schedules of one user")
    schedule_jitter_seconds: SecondsOrNone = Field(
        30, description="Runs that are due in the same minute start at random times within this time"
    )
    schedule_catch_up_limit: Count = Field(
        50, description="Limit of missed runs that a schedule with catch_up `all` starts at once"
    )
    schedule_max_failures: Count = Field(
        5, description="Number of failed runs in a row after which a schedule is paused"
    )
    schedule_all_users: Text = Field(
        "*",
        description="Users whose schedules can export the rows of all users, separated by commas. `*`: every "
        "user with the role exports:all",
    )
    schedule_grant_days: Days = Field(
        30,
        description="Time that a schedule keeps the roles and claims of its owner, such as exports:all, "
        "after its owner last proved them",
    )
    tick_lead_seconds: Seconds = Field(
        60,
        description="How far a tick can be ahead of the clock of the state database. Ticks further ahead are "
        "dead letters, and start only what is due by that clock",
    )
    retention_days: Days = Field(7, description="Time that files are kept")
    history_days: int = Field(
        400,
        ge=2,
        le=36_500,
        validate_default=True,
        description="Time that the record of a job is kept after its request. It must be longer than "
        "RETENTION_DAYS",
    )
    download_url_seconds: int = Field(
        300, ge=10, le=604_800, description="Time that a download link is valid"
    )

    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], in_case(str.upper)] = Field(
        "INFO", description="`DEBUG`, `INFO`, `WARNING` or `ERROR`"
    )
    log_format: Annotated[Literal["auto", "json", "console"], in_case(str.lower)] = Field(
        "auto", description="`json`, `console`, or `auto`: for people on a terminal, JSON elsewhere"
    )
    metrics_port: Port | None = Field(
        None, description="Port on which a worker or an API serves its metrics. Default: no port"
    )
    metrics_host: Host = Field("127.0.0.1", description="Address on which METRICS_PORT is opened")
    ready_file: FileToWrite | None = Field(
        None,
        description="File that a worker touches every 2 s while it is ready, and removes while it is not",
    )
    stuck_seconds: Seconds = Field(
        90,
        description="A worker exits if it makes no progress for this time although all parts of the service "
        "are available",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the sources: arguments first, then the environment, then the named settings file."""
        # An argument of the constructor names this file. Without one the source takes time and finds nothing.
        has_dotenv = bool(getattr(dotenv_settings, "env_vars", None))
        return (
            init_settings,
            Variables(settings_cls, environment_variables(), cls.CAN_BE_EMPTY),
            *((dotenv_settings,) if has_dotenv else ()),
            Variables(settings_cls, file_variables(), cls.CAN_BE_EMPTY),
        )

    @model_validator(mode="before")
    @classmethod
    def _without_blanks(cls, values: Any) -> Any:
        """Remove empty values, and blanks around values that are not secrets."""
        if not isinstance(values, dict):
            return values
        kept = {}
        for name, value in values.items():
            if isinstance(value, str):
                if not value.strip() and name not in cls.CAN_BE_EMPTY:
                    continue
                field = cls.model_fields.get(name)
                as_it_is = field is not None and is_secret(field) and not name.endswith("_url")
                value = value.strip("\r\n") if as_it_is else value.strip()
            kept[name] = value
        return kept

    @model_validator(mode="after")
    def _belong_together(self) -> Self:
        """Check settings that need each other."""
        local = is_local_url(self.s3_endpoint)
        if self.s3_access_key is not None and self.s3_secret_key is None and not local:
            raise ValueError(
                "EXPORTER_S3_SECRET_KEY: it is not set, but EXPORTER_S3_ACCESS_KEY is set; "
                "allowed: set both, or set neither to use the provider chain of AWS"
            )
        if self.s3_sse_kms_key is not None and self.s3_sse != "kms":
            raise ValueError(
                f"EXPORTER_S3_SSE_KMS_KEY: it is set, but EXPORTER_S3_SSE is {self.s3_sse!r}; "
                "allowed: only with EXPORTER_S3_SSE=kms"
            )
        return self

    @field_validator("history_days")
    @classmethod
    def _outlasts_files(cls, value: int, others: ValidationInfo) -> int:
        kept = others.data.get("retention_days", 0)
        if value <= kept:
            raise ValueError(
                f"{value} must be more than EXPORTER_RETENTION_DAYS, which is {kept}; "
                f"allowed: {kept + 1} to 36500"
            )
        return value

    @property
    def group(self) -> str:
        """Return the name of the workers' consumer group, with the prefix."""
        return self.kafka_topic_prefix + self.kafka_group

    @property
    def history(self) -> timedelta:
        """Return how long the records of jobs are kept."""
        return timedelta(days=self.history_days)

    @property
    def source_dsn(self) -> str:
        """Return the URL of the source database for asyncpg.

        Read it anew for each connection, because the password can change while the process runs.
        """
        url = (self.source_database_url or self.database_url).get_secret_value()
        return database_url.DatabaseUrl.parse(url, reads_only=True).dsn

    @property
    def state_dsn(self) -> str:
        """Return the URL of the state database for asyncpg; read it anew for each connection."""
        return database_url.DatabaseUrl.parse(self.database_url.get_secret_value()).dsn
