"""The only reader of the environment: every setting is ``EXPORTER_`` plus the field's name.

Values are parsed and checked here, once, by the types of :mod:`stream_app.setting_types`.
"""

import base64
import binascii
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, SecretStr, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from stream_app import database_url
from stream_app.setting_sources import Variables, environment_variables, file_variables, is_secret
from stream_app.setting_types import (
    Bucket,
    DatabaseUrl,
    Days,
    Domains,
    Endpoint,
    FileToWrite,
    Host,
    HostPatterns,
    KeyPrefix,
    MailAddress,
    Networks,
    Origins,
    Port,
    Region,
    Seconds,
    SecondsOrNone,
    WebUrl,
    is_local_url,
)
from streaming_exporter.kafka_settings import KafkaSettings
from streaming_exporter.setting_types import AnyWebUrl, Count, Text, in_case

DEVELOPMENT_SECRET = "development-secret-never-use-it-in-production"  # noqa: S105
"""Signs tokens where nothing else is configured; the API refuses it on a public address."""


class Settings(BaseSettings, KafkaSettings):
    """Settings of every process; see the table in README.md.

    Sizes are bytes, times seconds unless the name says otherwise.

    A variable that is empty, or blank, counts as not set. Every secret is also taken from the file that the
    variable with ``_FILE`` at its end names; see :class:`~streaming_exporter.file_secret.FileSecret`.

    Raises:
        pydantic.ValidationError: a variable has a value that its field does not allow.
        ValueError: a file that a variable names cannot be read.
    """

    model_config = SettingsConfigDict(
        env_prefix="EXPORTER_", extra="ignore", frozen=True, hide_input_in_errors=True
    )

    MAY_BE_EMPTY: ClassVar[frozenset[str]] = frozenset({"schedule_all_users"})
    """Settings whose empty value says something: here that no user may."""

    kafka_group: Text = Field("exporter", description="Consumer group that the workers share")
    database_url: DatabaseUrl = Field(
        SecretStr("postgresql://exporter:exporter@127.0.0.1:5432/exporter"),
        description="The service's own tables",
    )
    source_database_url: DatabaseUrl | None = Field(
        None, description="Where the exported rows are; default: DATABASE_URL"
    )
    datasets_file: Path | None = Field(None, description="TOML file with further datasets")

    s3_endpoint: Endpoint = Field(
        "http://127.0.0.1:9000", description="Object store, as the worker reaches it"
    )
    s3_public_endpoint: Endpoint | None = Field(
        None, description="Host in download links; default: S3_ENDPOINT"
    )
    s3_access_key: SecretStr | None = Field(
        None,
        description="Name of the key; default: `exporter` with a S3_SECRET_KEY, else what AWS's chain finds",
    )
    s3_secret_key: SecretStr | None = Field(None, description="The key that belongs to the name")
    s3_bucket: Bucket = Field("exports", description="Where the files go; created if it is not there")
    s3_secure: bool = Field(False, description="TLS, where the endpoint has no scheme of its own")
    s3_region: Region = Field("us-east-1", description="Region that requests are signed for")

    s3_key_prefix: KeyPrefix = Field(
        "", description="Folder in the bucket that everything of this service lies in, such as `exporter`"
    )
    s3_sse: Annotated[Literal["none", "s3", "kms"], in_case(str.lower)] = Field(
        "none", description="Encryption that the store is asked for: `none`, `s3` (SSE-S3) or `kms` (SSE-KMS)"
    )
    s3_sse_kms_key: Text | None = Field(
        None, description="Id or ARN of the key for `kms`; default: the bucket's or the account's"
    )

    smtp_host: Host | None = Field(None, description="Mail server; without one no mails are sent")
    smtp_port: Port = Field(25, description="Its port; 465 is TLS from the start")
    smtp_username: Text | None = Field(None, description="Name for the mail server")
    smtp_password: SecretStr | None = Field(None, description="Password for the mail server")
    smtp_starttls: bool = Field(False, description="Whether to encrypt with STARTTLS")
    mail_from: MailAddress = Field("exports@localhost", description="Sender of mails")
    public_url: WebUrl = Field("http://127.0.0.1:8000", description="Where users reach the API")
    cors_origins: Origins = Field(
        "",
        description="Origins of web pages that may call the API, separated by commas; `*`: any",
    )
    link_secret: SecretStr | None = Field(None, description="Signs links in mails; default: JWT_SECRET")
    mail_allowed_domains: Domains | None = Field(
        None,
        description="Domains that mails go to, by commas; `*`: any; default: any on loopback, else none",
    )
    user_mail_limit: Count = Field(500, description="Mails that the exports of one user send in 24 hours")
    mail_empty: bool = Field(True, description="Whether to mail when an export has no rows")
    mail_attach_max_bytes: int = Field(
        0, ge=0, le=2_147_483_647, description="Files up to this size are attached to their mails; 0: none"
    )
    webhook_secret: SecretStr | None = Field(
        None, description="Signs webhooks: `whsec_` and 24 to 64 bytes in base64; without one there are none"
    )
    webhook_previous_secret: SecretStr | None = Field(
        None, description="The WEBHOOK_SECRET before: webhooks carry its signature as well while it is set"
    )
    webhook_shared_signature: bool = Field(
        True,
        description="Whether webhooks are also signed with WEBHOOK_SECRET itself, which receivers then share",
    )
    webhook_allowed_hosts: HostPatterns | None = Field(
        None,
        description="Hosts that webhooks call, `*.` before a name for all below it; default: any public one",
    )
    webhook_denied_networks: Networks | None = Field(
        None, description="Networks, by commas, that webhooks never call, besides those that are not public"
    )
    webhook_allow_private: bool = Field(
        False, description="Whether webhooks may use http and reach private, link-local and loopback hosts"
    )
    delivery_timeout_seconds: Seconds = Field(30, description="Longest time one mail or webhook may take")

    jwt_secret: SecretStr = Field(
        SecretStr(DEVELOPMENT_SECRET), description="Verifies tokens (HS256), where there is no key set"
    )
    jwt_jwks_url: AnyWebUrl | None = Field(None, description="Key set that verifies tokens")
    jwt_audience: Text | None = Field(
        None, description="Audience that tokens must name; needed with a key set, where `*` is any"
    )
    jwt_issuer: Text | None = Field(
        None, description="Issuer that tokens must name; needed with a key set, where `*` is any"
    )
    jwt_user_claim: Text = Field(
        "sub", min_length=1, description="Claim that holds the user's id: a name, or a path such as `user.id`"
    )
    jwt_roles_claim: Text = Field(
        "roles",
        min_length=1,
        description="Claim that holds the roles: a name, or a path such as `realm_access.roles`",
    )
    jwt_max_lifetime_seconds: Count | None = Field(
        None, description="Longest time a token may be valid for; default: no limit"
    )
    token: SecretStr | None = Field(None, description="Bearer token that the command line sends to the API")

    trusted_proxies: Networks = Field(
        "",
        description="Addresses or networks of proxies whose `X-Forwarded-For` and `-Proto` count, by commas",
    )
    api_docs: bool = Field(True, description="Whether the API serves `/docs` and `/openapi.json`")
    probe_details: Annotated[Literal["auto", "open", "token"], in_case(str.lower)] = Field(
        "auto",
        description="Who may read `/metrics` and the parts of `/readyz` on the API's port: all (`open`), "
        "operators (`token`), or `auto`: all while only this machine can reach the API",
    )
    user_call_limit: Count = Field(512, description="Calls that one user may have under way")
    user_stream_limit: Count = Field(20, description="Event streams that one user may have open")
    api_call_limit: Count = Field(
        1024, description="Calls of users that one API process has under way at a time"
    )
    api_stream_limit: Count = Field(1000, description="Event streams that one API process has open at a time")
    api_connection_limit: Count = Field(
        2000, description="Connections that one API process has open at a time"
    )

    worker_slots: Count = Field(4, le=1_000, description="Exports that one worker runs at a time")
    user_slots: Count = Field(2, description="Exports of one user that run at a time")
    user_pending_limit: Count = Field(
        100, description="Unfinished jobs that one user may have when asking over HTTP"
    )
    lease_seconds: Seconds = Field(30, description="After this silence a job belongs to nobody")
    max_attempts: Count = Field(5, description="Failed attempts after which a job has failed")
    drain_seconds: Seconds = Field(20, description="Grace for running exports when a worker stops")
    export_timeout_seconds: Seconds = Field(
        3600, description="Longest time the statement of one attempt may take"
    )
    max_rows: Annotated[int, Field(ge=1, le=10**15)] | None = Field(
        None, description="Most rows one export may have; default: no limit"
    )
    pdf_max_rows: Count = Field(100_000, description="Most rows a PDF may have")
    pdf_max_bytes: Count = Field(256 * 2**20, description="Most bytes of text that a PDF's rows may have")
    user_schedule_limit: Count = Field(100, description="Schedules that one user may have")
    schedule_jitter_seconds: SecondsOrNone = Field(
        30, description="Runs that are due in the same minute start spread over this time"
    )
    schedule_catch_up_limit: Count = Field(
        50, description="Most missed runs that a schedule with catch_up `all` makes up for at once"
    )
    schedule_max_failures: Count = Field(5, description="Failed runs in a row that pause their schedule")
    schedule_all_users: Text = Field(
        "*",
        description="Users whose schedules may take every row, by commas; `*`: everybody with the role",
    )
    schedule_grant_days: Days = Field(
        30, description="How long a schedule may take every row after its owner last showed the role for it"
    )
    tick_lead_seconds: Seconds = Field(
        60, description="How far ahead of the state database's clock a tick may be; others are refused"
    )
    retention_days: Days = Field(7, description="How long files are kept")
    history_days: int = Field(
        400,
        ge=2,
        le=36_500,
        validate_default=True,
        description="How long jobs stay on record after they were asked for; longer than RETENTION_DAYS",
    )
    download_url_seconds: int = Field(
        300, ge=10, le=604_800, description="How long a download link is good for"
    )

    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], in_case(str.upper)] = Field(
        "INFO", description="`DEBUG`, `INFO`, `WARNING` or `ERROR`"
    )
    log_format: Annotated[Literal["auto", "json", "console"], in_case(str.lower)] = Field(
        "auto", description="`json`, `console`, or `auto`: readable on a terminal, JSON elsewhere"
    )
    metrics_port: Port | None = Field(
        None, description="Where a worker or an API serves its metrics; default: nowhere"
    )
    metrics_host: Host = Field("127.0.0.1", description="Address that it serves them on")
    ready_file: FileToWrite | None = Field(
        None, description="Touched every 2 s while a worker is ready, and removed while it is not"
    )
    stuck_seconds: Seconds = Field(
        90, description="A worker that makes no progress for so long, while all parts answer, exits"
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
        """Arguments first, then the environment, then the settings file that was named."""
        return (
            init_settings,
            Variables(settings_cls, environment_variables(), cls.MAY_BE_EMPTY),
            dotenv_settings,
            Variables(settings_cls, file_variables(), cls.MAY_BE_EMPTY),
        )

    @model_validator(mode="before")
    @classmethod
    def _without_blanks(cls, values: Any) -> Any:
        """Empty means not set; blanks around a value mean nothing, but in a secret."""
        if not isinstance(values, dict):
            return values
        kept = {}
        for name, value in values.items():
            if isinstance(value, str):
                if not value.strip() and name not in cls.MAY_BE_EMPTY:
                    continue
                field = cls.model_fields.get(name)
                as_it_is = field is not None and is_secret(field) and not name.endswith("_url")
                value = value.strip("\r\n") if as_it_is else value.strip()
            kept[name] = value
        return kept

    @field_validator("webhook_secret", "webhook_previous_secret")
    @classmethod
    def _is_webhook_secret(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not 24 <= len(_webhook_key(value)) <= 64:
            raise ValueError("it is no such secret; allowed: whsec_ and 24 to 64 bytes in base64")
        return value

    @model_validator(mode="after")
    def _belong_together(self) -> Self:
        """Settings that are only of use together."""
        local = is_local_url(self.s3_endpoint)
        if self.s3_access_key is not None and self.s3_secret_key is None and not local:
            raise ValueError(
                "EXPORTER_S3_SECRET_KEY: it is not set, and EXPORTER_S3_ACCESS_KEY is; "
                "allowed: both, or neither for the provider chain of AWS"
            )
        if self.s3_sse_kms_key is not None and self.s3_sse != "kms":
            raise ValueError(
                f"EXPORTER_S3_SSE_KMS_KEY: it is set, and EXPORTER_S3_SSE is {self.s3_sse!r}; "
                "allowed: only with kms"
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
        """What the cluster calls the group that the workers share."""
        return self.kafka_topic_prefix + self.kafka_group

    @property
    def history(self) -> timedelta:
        """How long jobs stay on record."""
        return timedelta(days=self.history_days)

    @property
    def webhook_key(self) -> bytes | None:
        """The bytes that webhooks are signed with; ``None`` where there are no webhooks."""
        return None if self.webhook_secret is None else _webhook_key(self.webhook_secret)

    @property
    def webhook_keys(self) -> list[bytes]:
        """The key of today and, while it is being changed, the one before."""
        secrets = (self.webhook_secret, self.webhook_previous_secret)
        return [_webhook_key(secret) for secret in secrets if secret is not None]

    @property
    def source_dsn(self) -> str:
        """The source database as asyncpg wants it; ask for each connection anew, for secrets change."""
        url = (self.source_database_url or self.database_url).get_secret_value()
        return database_url.DatabaseUrl.parse(url, reads_only=True).dsn

    @property
    def state_dsn(self) -> str:
        """The service's own database as asyncpg wants it; ask for each connection anew."""
        return database_url.DatabaseUrl.parse(self.database_url.get_secret_value()).dsn

    @property
    def uses_development_secret(self) -> bool:
        """Whether tokens are signed with the secret that everybody knows."""
        return self.jwt_secret.get_secret_value() == DEVELOPMENT_SECRET


def _webhook_key(secret: SecretStr) -> bytes:
    """The key's bytes; none where it is not written as Standard Webhooks write it."""
    prefix, _, key = secret.get_secret_value().partition("_")
    try:
        return base64.b64decode(key, validate=True) if prefix == "whsec" else b""
    except binascii.Error:
        return b""
