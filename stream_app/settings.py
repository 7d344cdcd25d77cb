"""The only reader of the environment: every setting is ``EXPORTER_`` plus the field's name."""

from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit, urlunsplit

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

DEVELOPMENT_SECRET = "development-secret-never-use-it-in-production"  # noqa: S105
"""Signs tokens where nothing else is configured; the API refuses it on a public address."""

Seconds = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class Settings(BaseSettings):
    """Settings of every process; see the table in README.md.

    Sizes are bytes, times seconds unless the name says otherwise.

    Raises:
        pydantic.ValidationError: a variable has a value that its field does not allow.
    """

    model_config = SettingsConfigDict(
        env_prefix="EXPORTER_", env_file=(".env", ".local/stack.env"), extra="ignore", frozen=True
    )

    kafka_bootstrap_servers: str = "127.0.0.1:9092"
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    kafka_sasl_username: str | None = None
    kafka_sasl_password: SecretStr | None = None
    kafka_ssl_cafile: Path | None = None
    kafka_group: str = Field("exporter", description="Consumer group that the workers share")
    kafka_partitions: Count = Field(8, description="Partitions of topics that the service creates")
    kafka_replication_factor: Count = 1

    database_url: SecretStr = Field(
        SecretStr("postgresql://exporter:exporter@127.0.0.1:5432/exporter"),
        description="The service's own tables",
    )
    source_database_url: SecretStr | None = Field(
        None, description="Where the exported rows are; default: DATABASE_URL"
    )
    datasets_file: Path | None = Field(None, description="TOML file with further datasets")

    s3_endpoint: str = "http://127.0.0.1:9000"
    s3_public_endpoint: str | None = Field(None, description="Host in download links; default: S3_ENDPOINT")
    s3_access_key: str = "exporter"
    s3_secret_key: SecretStr = SecretStr("exporter-secret")
    s3_bucket: str = "exports"
    s3_secure: bool = Field(False, description="TLS, where the endpoint has no scheme of its own")
    s3_region: str = "us-east-1"

    smtp_host: str | None = None
    smtp_port: Annotated[int, Field(ge=1, le=65535)] = 25
    smtp_username: str | None = None
    smtp_password: SecretStr | None = None
    smtp_starttls: bool = False
    mail_from: str = "exports@localhost"
    public_url: str = Field("http://127.0.0.1:8000", description="Where users reach the API")
    link_secret: SecretStr | None = Field(None, description="Signs links in mails; default: JWT_SECRET")

    jwt_secret: SecretStr = SecretStr(DEVELOPMENT_SECRET)
    jwt_jwks_url: str | None = None
    jwt_audience: str | None = None
    jwt_issuer: str | None = None
    token: SecretStr | None = Field(None, description="Bearer token that the command line sends to the API")

    worker_slots: Count = Field(4, description="Exports that one worker runs at a time")
    user_slots: Count = Field(2, description="Exports of one user that run at a time")
    user_pending_limit: Count = Field(100, description="Unfinished jobs that one user may have")
    lease_seconds: Seconds = Field(30, description="After this silence a job belongs to nobody")
    max_attempts: Count = 5
    drain_seconds: Seconds = Field(20, description="Grace for running exports when a worker stops")
    export_timeout_seconds: Seconds = Field(3600, description="Longest time one attempt may take")
    max_rows: Count | None = Field(None, description="Most rows one export may have")
    pdf_max_rows: Count = 100_000
    retention_days: Count = 7
    download_url_seconds: Annotated[int, Field(ge=10, le=604_800)] = 300

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["auto", "json", "console"] = "auto"
    ready_file: Path | None = Field(None, description="Touched when a worker is ready")

    @cached_property
    def state_dsn(self) -> str:
        """The state database as SQLAlchemy's asyncpg dialect wants it."""
        return urlunsplit(urlsplit(self.database_url.get_secret_value())._replace(scheme="postgresql+asyncpg"))

    @cached_property
    def source_dsn(self) -> str:
        """The source database as asyncpg wants it."""
        return (self.source_database_url or self.database_url).get_secret_value()

    @property
    def uses_development_secret(self) -> bool:
        """Whether tokens are signed with the secret that everybody knows."""
        return self.jwt_secret.get_secret_value() == DEVELOPMENT_SECRET
