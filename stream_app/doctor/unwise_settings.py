"""Finds settings that are allowed but unwise. The tests list the settings that are always harmless."""

from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit

from pydantic import SecretStr

from stream_app.doctor.findings import Finding, FindingFactory
from stream_app.doctor.part import Part
from stream_app.setting_errors import unknown_settings
from stream_app.setting_types import is_local_url
from stream_app.settings import Settings
from stream_app.unsafe_settings import is_known, is_public, key_set_faults, weak_signing_secrets

AREA = FindingFactory("settings")

MANY_STREAMS = 8
"""Each stream of an export keeps one core of the source database busy."""

NO_REAL_LIMIT = 100_000
"""A number of concurrent calls that no process reaches, so a limit of this size has no effect."""


def check_settings(settings: Settings, part: Part = Part.ALL) -> Iterator[Finding]:
    """Yield a finding for each unwise setting that ``part`` uses.

    Most checks apply only if other machines reach the system.
    """
    public = is_public(settings)
    tokens = _tokens(settings, public) if part.reads_tokens else ()
    parts = (_signing(settings, public, part), tokens, _passwords(settings, public))
    more = (_connections(settings, public), _addresses(settings, public), _times(settings), _limits(settings))
    found = [finding for part in (_unknown(), *parts, *more) for finding in part]
    yield from found or [AREA.ok("values", "no risky setting")]


def _unknown() -> Iterator[Finding]:
    for name, nearest in unknown_settings().items():
        if nearest:
            yield AREA.warning(name, "misspelt_setting", name=name, nearest=nearest)
        else:
            yield AREA.warning(name, "unknown_setting", name=name)


def _signing(settings: Settings, public: bool, part: Part) -> Iterator[Finding]:
    refused = dict(weak_signing_secrets(settings, public=public, reads_tokens=part.reads_tokens))
    for variable, why in weak_signing_secrets(settings, public=True, reads_tokens=part.reads_tokens):
        if variable in refused and not part.reads_tokens:
            yield AREA.problem(variable, "forgeable_links", reason=refused[variable])
        elif variable in refused:
            yield AREA.problem(variable, "refused_secret", reason=refused[variable])
        elif variable == "EXPORTER_JWT_SECRET" and is_known(settings.jwt_secret):
            yield AREA.warning(variable, "development_secret")
        else:
            yield AREA.warning(variable, "weak_secret", reason=why)


def _tokens(settings: Settings, public: bool) -> Iterator[Finding]:
    for variable, why in key_set_faults(settings):
        yield AREA.problem(variable, "open_key_set", reason=why)
    if settings.jwt_jwks_url is not None:
        for variable, value in (
            ("EXPORTER_JWT_AUDIENCE", settings.jwt_audience),
            ("EXPORTER_JWT_ISSUER", settings.jwt_issuer),
        ):
            if value == "*":
                yield AREA.warning(variable, "foreign_tokens")
    if public and settings.jwt_max_lifetime_seconds is None:
        yield AREA.warning("EXPORTER_JWT_MAX_LIFETIME_SECONDS", "long_lived_tokens")
    if public and settings.probe_details == "open":
        yield AREA.warning("EXPORTER_PROBE_DETAILS", "open_probe_details")


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
            yield AREA.problem(variable, "public_password")
    if settings.token is not None:
        yield AREA.warning("EXPORTER_TOKEN", "token_of_user")


def _connections(settings: Settings, public: bool) -> Iterator[Finding]:
    if settings.kafka_security_protocol in ("PLAINTEXT", "SASL_PLAINTEXT") and any(
        not is_local_url(server.strip()) for server in settings.kafka_bootstrap_servers.split(",")
    ):
        yield AREA.warning(
            "EXPORTER_KAFKA_SECURITY_PROTOCOL", "unencrypted_kafka", protocol=settings.kafka_security_protocol
        )
    token_url = settings.kafka_oauth_token_url
    if token_url and urlsplit(token_url).scheme != "https" and not is_local_url(token_url):
        yield AREA.problem("EXPORTER_KAFKA_OAUTH_TOKEN_URL", "unencrypted_token_url")
    # Port 465 uses TLS from the start. Without TLS the password is sent to any server that answers.
    encrypted = settings.smtp_starttls or settings.smtp_port == 465
    if (
        settings.smtp_host
        and settings.smtp_username
        and not encrypted
        and not is_local_url(settings.smtp_host)
    ):
        yield AREA.problem("EXPORTER_SMTP_STARTTLS", "unencrypted_mail_password")
    for variable, endpoint, secure in (
        ("EXPORTER_S3_ENDPOINT", settings.s3_endpoint, settings.s3_secure),
        ("EXPORTER_S3_PUBLIC_ENDPOINT", settings.s3_public_endpoint or "", settings.s3_secure),
    ):
        clear = urlsplit(endpoint).scheme == "http" or ("://" not in endpoint and not secure)
        if public and endpoint and clear and not is_local_url(endpoint):
            yield AREA.warning(variable, "unencrypted_files", endpoint=endpoint)
    if public and urlsplit(settings.public_url).scheme != "https":
        yield AREA.problem("EXPORTER_PUBLIC_URL", "unencrypted_public_url")
    if settings.source_database_url is None and public:
        yield AREA.warning("EXPORTER_SOURCE_DATABASE_URL", "source_with_own_role")


def _addresses(settings: Settings, public: bool) -> Iterator[Finding]:
    reached = settings.s3_public_endpoint or settings.s3_endpoint
    if public and is_local_url(reached):
        yield AREA.problem("EXPORTER_S3_PUBLIC_ENDPOINT", "unreachable_links", address=reached)
    if public and settings.cors_origins == "*":
        yield AREA.warning("EXPORTER_CORS_ORIGINS", "any_origin")
    if settings.smtp_host and settings.mail_allowed_domains == "*" and public:
        yield AREA.warning("EXPORTER_MAIL_ALLOWED_DOMAINS", "any_mail_address")
    if settings.smtp_host and settings.mail_allowed_domains is None and public:
        yield AREA.warning("EXPORTER_MAIL_ALLOWED_DOMAINS", "no_mail_address")
    if settings.webhook_secret is not None and settings.webhook_shared_signature and public:
        yield AREA.warning("EXPORTER_WEBHOOK_SHARED_SIGNATURE", "shared_webhook_secret")
    if public and settings.webhook_allow_private:
        yield AREA.problem("EXPORTER_WEBHOOK_ALLOW_PRIVATE", "private_webhooks")
    for text in filter(None, map(str.strip, settings.trusted_proxies.split(","))):
        if text == "*" or _matches_all_addresses(text):
            yield AREA.problem("EXPORTER_TRUSTED_PROXIES", "any_proxy", text=text)
    if settings.metrics_port is not None and public and _is_all_interfaces(settings.metrics_host):
        yield AREA.warning("EXPORTER_METRICS_HOST", "public_metrics", host=settings.metrics_host)
    if settings.schedule_all_users == "*" and public:
        yield AREA.warning("EXPORTER_SCHEDULE_ALL_USERS", "any_schedule_user")
    if settings.log_level == "DEBUG" and public:
        yield AREA.warning("EXPORTER_LOG_LEVEL", "debug_log")


def _times(settings: Settings) -> Iterator[Finding]:
    if settings.lease_seconds < 10:
        yield AREA.warning("EXPORTER_LEASE_SECONDS", "short_lease", seconds=round(settings.lease_seconds))
    if settings.download_url_seconds > 86_400 * settings.retention_days:
        yield AREA.warning("EXPORTER_DOWNLOAD_URL_SECONDS", "long_links")
    if settings.schedule_grant_days > 365:
        yield AREA.warning("EXPORTER_SCHEDULE_GRANT_DAYS", "long_grants")
    if settings.stuck_seconds < 2 * settings.lease_seconds:
        yield AREA.warning("EXPORTER_STUCK_SECONDS", "early_exit", seconds=round(settings.stuck_seconds))


def _limits(settings: Settings) -> Iterator[Finding]:
    if settings.user_slots > settings.worker_slots:
        yield AREA.warning("EXPORTER_USER_SLOTS", "all_slots_for_one")
    if settings.source_streams > MANY_STREAMS:
        yield AREA.warning("EXPORTER_SOURCE_STREAMS", "many_streams", limit=MANY_STREAMS)
    for users, process in (
        ("user_call_limit", "api_call_limit"),
        ("user_stream_limit", "api_stream_limit"),
        ("user_wait_limit", "api_wait_limit"),
    ):
        if getattr(settings, users) > getattr(settings, process):
            yield AREA.warning(
                f"EXPORTER_{users.upper()}", "all_calls_for_one", variable=f"EXPORTER_{process.upper()}"
            )
    for name in (
        "api_call_limit", "api_connection_limit", "api_stream_limit", "api_wait_limit", "user_pending_limit",
        "user_schedule_limit",
    ):  # fmt: skip
        if getattr(settings, name) > NO_REAL_LIMIT:
            yield AREA.warning(f"EXPORTER_{name.upper()}", "no_real_limit", limit=NO_REAL_LIMIT)
    if settings.kafka_replication_factor < 2 and any(
        not is_local_url(server.strip()) for server in settings.kafka_bootstrap_servers.split(",")
    ):
        yield AREA.warning("EXPORTER_KAFKA_REPLICATION_FACTOR", "single_copy_topics")


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
