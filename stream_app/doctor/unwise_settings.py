"""Check for settings that are allowed but unwise. The tests list the settings that are always harmless."""

from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit

from pydantic import SecretStr

from stream_app.doctor.findings import Finding, FindingFactory
from stream_app.exposure import is_known, is_public, key_set_faults, weak_signing_secrets
from stream_app.setting_errors import unknown_settings
from stream_app.setting_types import is_local_url
from stream_app.settings import Settings

AREA = FindingFactory("settings")

RANDOM = "set it to at least 32 random characters, for example with: openssl rand -hex 32"
MANY_STREAMS = 8
"""Each stream of an export keeps one core of the source database busy."""

NO_REAL_LIMIT = 100_000
"""A number of concurrent calls that no process reaches, so a limit of this size has no effect."""


def check_settings(settings: Settings) -> Iterator[Finding]:
    """Yield a finding for each unwise setting. Most checks apply only if other machines reach the system."""
    public = is_public(settings)
    parts = (_signing(settings, public), _tokens(settings, public), _passwords(settings, public))
    more = (_connections(settings, public), _addresses(settings, public), _times(settings), _limits(settings))
    found = [finding for part in (_unknown(), *parts, *more) for finding in part]
    yield from found or [AREA.ok("values", "no risky setting")]


def _unknown() -> Iterator[Finding]:
    for name, text in unknown_settings().items():
        yield AREA.warning(name, text, "see the list in docs/settings.md, or remove the variable")


def _signing(settings: Settings, public: bool) -> Iterator[Finding]:
    refused = dict(weak_signing_secrets(settings, public=public))
    for variable, why in weak_signing_secrets(settings, public=True):
        if variable in refused:
            yield AREA.problem(variable, refused[variable], f"{RANDOM}; the API does not start with it")
        elif variable == "EXPORTER_JWT_SECRET" and is_known(settings.jwt_secret):
            yield AREA.warning(
                variable,
                "tokens are signed with the development secret, which is public",
                f"{RANDOM}, or set EXPORTER_JWT_JWKS_URL, before others can reach the API",
            )
        else:
            yield AREA.warning(variable, why, f"{RANDOM}, before others can reach the API")


def _tokens(settings: Settings, public: bool) -> Iterator[Finding]:
    for variable, why in key_set_faults(settings):
        yield AREA.problem(variable, why, "set it to the value that the identity provider documents")
    if settings.jwt_jwks_url is not None:
        for variable, value in (
            ("EXPORTER_JWT_AUDIENCE", settings.jwt_audience),
            ("EXPORTER_JWT_ISSUER", settings.jwt_issuer),
        ):
            if value == "*":
                yield AREA.warning(
                    variable,
                    "tokens that the provider signed for other applications are accepted here",
                    "set it to the value in the tokens for this service",
                )
    if public and settings.jwt_max_lifetime_seconds is None:
        yield AREA.warning(
            "EXPORTER_JWT_MAX_LIFETIME_SECONDS",
            "a token can be valid for years, and a stolen token cannot be revoked",
            "set it to the longest lifetime of your tokens, such as 86400",
        )
    if public and settings.probe_details == "open":
        yield AREA.warning(
            "EXPORTER_PROBE_DETAILS",
            "everyone who can reach the API can read its metrics, which have the names of datasets",
            "leave it at `auto`, and let Prometheus read the metrics at EXPORTER_METRICS_PORT",
        )


def _passwords(settings: Settings, public: bool) -> Iterator[Finding]:
    if not public:
        return
    secrets: dict[str, SecretStr | str | None] = {
        "EXPORTER_S3_SECRET_KEY": settings.s3_secret_key,
        "EXPORTER_SMTP_PASSWORD": settings.smtp_password,
        "EXPORTER_KAFKA_SASL_PASSWORD": settings.kafka_sasl_password,
        "EXPORTER_KAFKA_SSL_KEY_PASSWORD": settings.kafka_ssl_key_password,
        "EXPORTER_KAFKA_OAUTH_CLIENT_SECRET": settings.kafka_oauth_client_secret,
        "EXPORTER_DATABASE_URL": urlsplit(settings.database_url.get_secret_value()).password,
    }
    if settings.source_database_url is not None:
        source = settings.source_database_url.get_secret_value()
        secrets["EXPORTER_SOURCE_DATABASE_URL"] = urlsplit(source).password
    for variable, secret in secrets.items():
        if secret is not None and is_known(secret):
            yield AREA.problem(
                variable, "its password is public, because examples contain it", "set your own password"
            )
    if settings.token is not None:
        yield AREA.warning(
            "EXPORTER_TOKEN",
            "a service needs no user's token: everyone who reads its environment can act as that user",
            "set it only for the command line",
        )


def _connections(settings: Settings, public: bool) -> Iterator[Finding]:
    if settings.kafka_security_protocol in ("PLAINTEXT", "SASL_PLAINTEXT") and any(
        not is_local_url(server.strip()) for server in settings.kafka_bootstrap_servers.split(",")
    ):
        yield AREA.warning(
            "EXPORTER_KAFKA_SECURITY_PROTOCOL",
            f"{settings.kafka_security_protocol}: requests and their filters are sent unencrypted",
            "set it to SASL_SSL or SSL",
        )
    token_url = settings.kafka_oauth_token_url
    if token_url and urlsplit(token_url).scheme != "https" and not is_local_url(token_url):
        yield AREA.problem(
            "EXPORTER_KAFKA_OAUTH_TOKEN_URL",
            "the client's secret and its tokens are sent unencrypted",
            "use https",
        )
    # Port 465 uses TLS from the start. Without TLS the password is sent to any server that answers.
    encrypted = settings.smtp_starttls or settings.smtp_port == 465
    if (
        settings.smtp_host
        and settings.smtp_username
        and not encrypted
        and not is_local_url(settings.smtp_host)
    ):
        yield AREA.problem(
            "EXPORTER_SMTP_STARTTLS",
            "name and password are sent to the mail server unencrypted",
            "set it to true, or EXPORTER_SMTP_PORT to 465",
        )
    for variable, endpoint, secure in (
        ("EXPORTER_S3_ENDPOINT", settings.s3_endpoint, settings.s3_secure),
        ("EXPORTER_S3_PUBLIC_ENDPOINT", settings.s3_public_endpoint or "", settings.s3_secure),
    ):
        clear = urlsplit(endpoint).scheme == "http" or ("://" not in endpoint and not secure)
        if public and endpoint and clear and not is_local_url(endpoint):
            yield AREA.warning(variable, f"files are sent to and from {endpoint} unencrypted", "use https")
    if public and urlsplit(settings.public_url).scheme != "https":
        yield AREA.problem(
            "EXPORTER_PUBLIC_URL",
            "tokens and links in mails are sent unencrypted",
            "put a proxy with TLS in front of the API, and set it to the proxy's https address",
        )
    if settings.source_database_url is None and public:
        yield AREA.warning(
            "EXPORTER_SOURCE_DATABASE_URL",
            "exports read with the role that owns the service's own tables",
            "set it to a role that can only SELECT the exported tables",
        )


def _addresses(settings: Settings, public: bool) -> Iterator[Finding]:
    reached = settings.s3_public_endpoint or settings.s3_endpoint
    if public and is_local_url(reached):
        yield AREA.problem(
            "EXPORTER_S3_PUBLIC_ENDPOINT",
            f"download links point to {reached}, which users cannot reach",
            "set it to the address at which users reach the object store",
        )
    if public and settings.cors_origins == "*":
        yield AREA.warning(
            "EXPORTER_CORS_ORIGINS",
            "pages of every origin can call the API",
            "set it to the origins of your pages",
        )
    if settings.smtp_host and settings.mail_allowed_domains == "*" and public:
        yield AREA.warning(
            "EXPORTER_MAIL_ALLOWED_DOMAINS",
            "mails can be sent to every address",
            "set it to the allowed domains",
        )
    if settings.smtp_host and settings.mail_allowed_domains is None and public:
        yield AREA.warning(
            "EXPORTER_MAIL_ALLOWED_DOMAINS",
            "a mail server is configured, but no recipient is allowed",
            "set it to the allowed domains",
        )
    if settings.webhook_secret is not None and settings.webhook_shared_signature and public:
        yield AREA.warning(
            "EXPORTER_WEBHOOK_SHARED_SIGNATURE",
            "a receiver that knows EXPORTER_WEBHOOK_SECRET can forge webhooks to other receivers",
            "give each receiver its own secret (GET /exports/webhook-secret), then set it to false",
        )
    if public and settings.webhook_allow_private:
        yield AREA.problem(
            "EXPORTER_WEBHOOK_ALLOW_PRIVATE",
            "users can make the service call hosts of your own network",
            "remove it",
        )
    for text in filter(None, map(str.strip, settings.trusted_proxies.split(","))):
        if text == "*" or _matches_all_addresses(text):
            yield AREA.problem(
                "EXPORTER_TRUSTED_PROXIES",
                f"{text}: every client can choose the address that is logged for it",
                "set it to the addresses of your proxies",
            )
    if settings.metrics_port is not None and public and _is_all_interfaces(settings.metrics_host):
        yield AREA.warning(
            "EXPORTER_METRICS_HOST",
            f"metrics are served on {settings.metrics_host}, which is every address of this machine",
            "make sure that only Prometheus can reach the port (a NetworkPolicy, a firewall)",
        )
    if settings.schedule_all_users == "*" and public:
        yield AREA.warning(
            "EXPORTER_SCHEDULE_ALL_USERS",
            "schedules of all users with the role can export all rows until their grant ends",
            "set it to the users who need such schedules",
        )
    if settings.log_level == "DEBUG" and public:
        yield AREA.warning(
            "EXPORTER_LOG_LEVEL", "at this level the log has personal data of users", "set it to INFO"
        )


def _times(settings: Settings) -> Iterator[Finding]:
    if settings.lease_seconds < 10:
        yield AREA.warning(
            "EXPORTER_LEASE_SECONDS",
            f"{settings.lease_seconds:.0f} s: a short pause of the database ends running exports",
            "set it to 10 or more",
        )
    if settings.download_url_seconds > 86_400 * settings.retention_days:
        yield AREA.warning(
            "EXPORTER_DOWNLOAD_URL_SECONDS",
            "download links are valid for longer than their files exist",
            "set it to a shorter time than EXPORTER_RETENTION_DAYS",
        )
    if settings.schedule_grant_days > 365:
        yield AREA.warning(
            "EXPORTER_SCHEDULE_GRANT_DAYS",
            "schedules export all rows for more than a year after their owner last proved the role",
            "set it to 365 or less",
        )
    if settings.stuck_seconds < 2 * settings.lease_seconds:
        yield AREA.warning(
            "EXPORTER_STUCK_SECONDS",
            f"{settings.stuck_seconds:.0f} s: a worker exits while its leases are still valid",
            "set it to more than twice EXPORTER_LEASE_SECONDS",
        )


def _limits(settings: Settings) -> Iterator[Finding]:
    if settings.user_slots > settings.worker_slots:
        yield AREA.warning(
            "EXPORTER_USER_SLOTS",
            "one user can take all slots of a worker",
            "set it to less than EXPORTER_WORKER_SLOTS",
        )
    if settings.source_streams > MANY_STREAMS:
        yield AREA.warning(
            "EXPORTER_SOURCE_STREAMS",
            "one export can keep more cores of the source database busy than most servers have",
            f"set it to {MANY_STREAMS} or less",
        )
    for users, process in (
        ("user_call_limit", "api_call_limit"),
        ("user_stream_limit", "api_stream_limit"),
    ):
        if getattr(settings, users) > getattr(settings, process):
            yield AREA.warning(
                f"EXPORTER_{users.upper()}",
                "one user can take all of the API's capacity",
                f"set it to less than EXPORTER_{process.upper()}",
            )
    for name in (
        "api_call_limit", "api_connection_limit", "api_stream_limit", "api_wait_limit", "user_pending_limit",
        "user_schedule_limit",
    ):  # fmt: skip
        if getattr(settings, name) > NO_REAL_LIMIT:
            yield AREA.warning(
                f"EXPORTER_{name.upper()}",
                "the limit is too high to have an effect",
                f"set it to less than {NO_REAL_LIMIT:,}",
            )
    if settings.kafka_replication_factor < 2 and any(
        not is_local_url(server.strip()) for server in settings.kafka_bootstrap_servers.split(",")
    ):
        yield AREA.warning(
            "EXPORTER_KAFKA_REPLICATION_FACTOR",
            "topics that the service creates are lost if one broker fails",
            "set it to 3",
        )


def _matches_all_addresses(text: str) -> bool:
    try:
        return ip_network(text, strict=False).prefixlen == 0
    except ValueError:
        return False


def _is_all_interfaces(host: str) -> bool:
    try:
        return ip_address(host).is_unspecified
    except ValueError:
        return False
