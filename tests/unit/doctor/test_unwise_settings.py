"""Findings about unwise settings, and their output."""

import io
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from rich.console import Console

from producers.tokens import sign_token
from stream_app.doctor.findings import FindingFactory, State, as_json, show, worst
from stream_app.doctor.part import Part
from stream_app.doctor.unwise_settings import check_settings
from stream_app.settings import Settings
from stream_app.sign_in_settings import DEVELOPMENT_SECRET
from stream_app.unsafe_settings import UnsafeSettings, refuse_weak_secrets
from streaming_exporter.errors import UsageError
from tests.rows import each_row

SAFE: dict[str, Any] = {
    "jwt_secret": SecretStr("wq8Zr1TfK0vYh3LmXc6Jb9NeUs2PdGa5"),
    "jwt_max_lifetime_seconds": 86_400,
    "public_url": "https://exports.example.com",
    "s3_endpoint": "https://s3.internal.example.com",
    "s3_public_endpoint": "https://files.example.com",
    "s3_secret_key": SecretStr("kX2v9QmT"),
    "database_url": SecretStr("postgresql://app:u7Hd2kPq@state.example.com/exporter"),
    "source_database_url": SecretStr("postgresql://reader:m3Zx8vBn@replica.example.com/shop"),
    "kafka_replication_factor": 3,
    "schedule_all_users": "reporting",
    "kafka_security_protocol": "SASL_SSL",
    "kafka_sasl_username": "exporter",
    "kafka_sasl_password": SecretStr("t5Rw9kLm"),
    "s3_access_key": SecretStr("exporter"),
    "kafka_bootstrap_servers": "kafka.example.com:9093",
}
"""Safe settings of a public service."""

PROVIDER = {
    "jwt_jwks_url": "https://login.example.com/jwks",
    "jwt_audience": "exports",
    "jwt_issuer": "https://login.example.com",
    "link_secret": SecretStr("Jc6Tn0WbQ4yRf8Km2XsVh5LpZe9GaUd1"),
}
MAIL = {"smtp_host": "mail.example.com", "mail_allowed_domains": "example.com"}
WEBHOOK = SecretStr("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
KNOWN = SecretStr("change-me-to-at-least-32-random-characters")
PROBLEM, WARNING = State.PROBLEM, State.WARNING

UNWISE: list[tuple[str, dict[str, Any], State]] = [
    ("source_streams", {"source_streams": 9}, WARNING),
    ("jwt_secret", {"jwt_secret": SecretStr(DEVELOPMENT_SECRET)}, PROBLEM),
    ("jwt_secret", {"jwt_secret": KNOWN}, PROBLEM),
    ("jwt_secret", {"jwt_secret": SecretStr("a")}, PROBLEM),
    ("jwt_secret", {"jwt_secret": SecretStr("")}, PROBLEM),
    ("jwt_secret", {"jwt_secret": SecretStr(" " * 40)}, PROBLEM),
    ("jwt_secret", {"jwt_secret": SecretStr("ab" * 20)}, PROBLEM),
    ("link_secret", {"link_secret": KNOWN}, PROBLEM),
    ("link_secret", {"link_secret": SecretStr("short")}, PROBLEM),
    ("link_secret", PROVIDER | {"link_secret": None, "jwt_secret": SecretStr(DEVELOPMENT_SECRET)}, PROBLEM),
    ("jwt_jwks_url", PROVIDER | {"jwt_jwks_url": "http://login.example.com/jwks"}, PROBLEM),
    ("jwt_jwks_url", PROVIDER | {"jwt_jwks_url": "file:///etc/jwks.json"}, PROBLEM),
    ("jwt_audience", PROVIDER | {"jwt_audience": None}, PROBLEM),
    ("jwt_audience", PROVIDER | {"jwt_audience": "*"}, WARNING),
    ("jwt_issuer", PROVIDER | {"jwt_issuer": ""}, PROBLEM),
    ("jwt_issuer", PROVIDER | {"jwt_issuer": "*"}, WARNING),
    ("jwt_max_lifetime_seconds", {"jwt_max_lifetime_seconds": None}, WARNING),
    ("probe_details", {"probe_details": "open"}, WARNING),
    ("token", {"token": SecretStr("a.b.c")}, WARNING),
    ("s3_secret_key", {"s3_secret_key": SecretStr("exporter-secret")}, PROBLEM),
    ("smtp_password", {"smtp_password": SecretStr("change-me")}, PROBLEM),
    ("kafka_sasl_password", {"kafka_sasl_password": SecretStr("change-me")}, PROBLEM),
    ("kafka_ssl_key_password", {"kafka_ssl_key_password": SecretStr("change-me")}, PROBLEM),
    ("kafka_oauth_client_secret", {"kafka_oauth_client_secret": SecretStr("change-me")}, PROBLEM),
    ("kafka_oauth_token_url", {"kafka_oauth_token_url": "http://login.example.com/token"}, PROBLEM),
    ("database_url", {"database_url": SecretStr("postgresql://exporter:exporter@db/exporter")}, PROBLEM),
    ("source_database_url", {"source_database_url": SecretStr("postgresql://r:change-me@db/x")}, PROBLEM),
    ("source_database_url", {"source_database_url": None}, WARNING),
    ("kafka_security_protocol", {"kafka_security_protocol": "PLAINTEXT"}, WARNING),
    ("kafka_security_protocol", {"kafka_security_protocol": "SASL_PLAINTEXT"}, WARNING),
    ("kafka_replication_factor", {"kafka_replication_factor": 1}, WARNING),
    ("smtp_starttls", MAIL | {"smtp_username": "exports"}, PROBLEM),
    ("s3_endpoint", {"s3_endpoint": "http://s3.internal.example.com"}, WARNING),
    ("s3_endpoint", {"s3_endpoint": "s3.internal.example.com:9000"}, WARNING),
    ("s3_public_endpoint", {"s3_public_endpoint": "http://files.example.com"}, WARNING),
    ("s3_public_endpoint", {"s3_public_endpoint": "localhost:9000"}, PROBLEM),
    ("public_url", {"public_url": "http://exports.example.com"}, PROBLEM),
    ("cors_origins", {"cors_origins": "*"}, WARNING),
    ("mail_allowed_domains", MAIL | {"mail_allowed_domains": "*"}, WARNING),
    ("mail_allowed_domains", MAIL | {"mail_allowed_domains": None}, WARNING),
    ("webhook_shared_signature", {"webhook_secret": WEBHOOK, "webhook_shared_signature": True}, WARNING),
    ("webhook_allow_private", {"webhook_allow_private": True}, PROBLEM),
    ("trusted_proxies", {"trusted_proxies": "*"}, PROBLEM),
    ("trusted_proxies", {"trusted_proxies": "10.0.0.1, 0.0.0.0/0"}, PROBLEM),
    ("metrics_host", {"metrics_port": 9100, "metrics_host": "0.0.0.0"}, WARNING),
    ("schedule_all_users", {"schedule_all_users": "*"}, WARNING),
    ("log_level", {"log_level": "DEBUG"}, WARNING),
    ("lease_seconds", {"lease_seconds": 3}, WARNING),
    ("stuck_seconds", {"stuck_seconds": 40}, WARNING),
    ("schedule_grant_days", {"schedule_grant_days": 3_650}, WARNING),
    ("download_url_seconds", {"retention_days": 1, "download_url_seconds": 600_000}, WARNING),
    ("user_slots", {"user_slots": 9}, WARNING),
    ("user_call_limit", {"user_call_limit": 5_000}, WARNING),
    ("user_stream_limit", {"user_stream_limit": 5_000}, WARNING),
    ("user_wait_limit", {"user_wait_limit": 5_000}, WARNING),
    ("api_call_limit", {"api_call_limit": 10**6}, WARNING),
    ("api_stream_limit", {"api_stream_limit": 10**6}, WARNING),
    ("api_wait_limit", {"api_wait_limit": 10**6}, WARNING),
    ("api_connection_limit", {"api_connection_limit": 10**6}, WARNING),
    ("user_pending_limit", {"user_pending_limit": 10**6}, WARNING),
    ("user_schedule_limit", {"user_schedule_limit": 10**6}, WARNING),
]

HARMLESS = {
    # names, places and preferences
    "api_docs", "datasets_file", "kafka_bootstrap_servers", "jwt_roles_claim",
    "jwt_user_claim", "kafka_group", "kafka_partitions",
    "kafka_oauth_audience", "kafka_oauth_cafile", "kafka_oauth_client_id", "kafka_oauth_extensions",
    "kafka_oauth_parameters", "kafka_oauth_scope", "kafka_ssl_certfile", "kafka_ssl_keyfile",
    "kafka_sasl_mechanism", "kafka_sasl_username", "kafka_ssl_cafile", "kafka_topic_prefix", "log_format",
    "mail_empty", "mail_from", "metrics_port", "ready_file", "s3_access_key", "s3_bucket", "s3_region",
    "s3_key_prefix", "s3_secure", "s3_sse", "s3_sse_kms_key", "smtp_host", "smtp_port", "smtp_username",
    "oidc_audience", "oidc_client_id", "oidc_scopes", "sign_in_hint", "sign_in_url",
    # checked when they are read
    "oidc_issuer", "oidc_origins",
    "webhook_secret", "webhook_previous_secret", "webhook_allowed_hosts", "webhook_denied_networks",
    "user_mail_limit", "slack_allowed_hosts", "teams_allowed_hosts",
    # these cost time or space, but no security
    "delivery_timeout_seconds", "drain_seconds", "export_timeout_seconds", "history_days",
    "mail_attach_max_bytes", "max_attempts", "max_rows", "pdf_max_bytes", "pdf_max_rows", "retention_days",
    "split_max_bytes", "split_max_files", "parts_min_bytes", "schedule_catch_up_limit",
    "schedule_jitter_seconds", "schedule_max_failures", "tick_lead_seconds",
    "parallel_min_bytes", "worker_slots",
}  # fmt: skip
"""Settings without unwise values."""


@cache
def safe() -> Settings:
    return Settings(_env_file=None, **SAFE)


def found(**changed: Any) -> dict[str, State]:
    # Some of these values are refused when they are read. They are checked here too.
    settings = safe().model_copy(update=changed)
    return {finding.check: finding.state for finding in check_settings(settings)}


def test_safe_settings_have_no_findings() -> None:
    assert found() == {"values": State.OK}
    assert found(**PROVIDER, **MAIL) == {"values": State.OK}


@each_row(("name", "changed", "state"), UNWISE)
def test_unwise(name: str, changed: dict[str, Any], state: State) -> None:
    """S3: a setting that can be unwise has a finding."""
    assert found(**changed).get(f"EXPORTER_{name.upper()}") == state


LOCAL = {"public_url": "http://127.0.0.1:8000"}


@pytest.mark.parametrize("secret", ["test-secret", "a", "ab" * 20, DEVELOPMENT_SECRET])
def test_a_weak_secret_is_a_warning_while_only_this_machine_reaches_the_service(secret: str) -> None:
    changed = {"jwt_secret": SecretStr(secret), "link_secret": SecretStr(secret)} | LOCAL
    settings = Settings(_env_file=None, **SAFE).model_copy(update=changed)
    refuse_weak_secrets(settings)
    refuse_weak_secrets(settings, "127.0.0.1")
    findings = found(**changed)
    assert findings["EXPORTER_JWT_SECRET"] == findings["EXPORTER_LINK_SECRET"] == WARNING
    with pytest.raises(UnsafeSettings, match="EXPORTER_JWT_SECRET"):
        refuse_weak_secrets(settings, "0.0.0.0")


@pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")
def test_tokens_are_signed_with_a_short_secret_but_not_with_an_empty_one() -> None:
    settings = Settings(_env_file=None, **SAFE).model_copy(update=LOCAL)
    assert sign_token(settings.model_copy(update={"jwt_secret": SecretStr("test-secret")}), "ada")
    for secret in ("", " " * 40):
        empty = settings.model_copy(update={"jwt_secret": SecretStr(secret)})
        with pytest.raises(UsageError, match="EXPORTER_JWT_SECRET: it is empty"):
            sign_token(empty, "ada")
        with pytest.raises(UnsafeSettings, match="EXPORTER_JWT_SECRET: it is empty"):
            refuse_weak_secrets(empty, "127.0.0.1")


def of_worker(**changed: Any) -> dict[str, str]:
    """Return the codes of what is found in a worker, which has no settings of tokens."""
    without = {"jwt_secret": SecretStr(DEVELOPMENT_SECRET), "jwt_max_lifetime_seconds": None}
    settings = Settings(_env_file=None, **SAFE).model_copy(update=without | changed)
    return {f.check: f.code for f in check_settings(settings, Part.WORKER) if f.state is not State.OK}


def test_a_worker_needs_a_secret_of_links_and_none_of_tokens() -> None:
    assert of_worker(link_secret=PROVIDER["link_secret"]) == {}
    assert of_worker(jwt_secret=SAFE["jwt_secret"]) == {}
    links = {"EXPORTER_LINK_SECRET": "forgeable_links"}
    assert of_worker() == of_worker(link_secret=KNOWN) == links
    assert of_worker(**LOCAL) == {"EXPORTER_LINK_SECRET": "weak_secret"}


@pytest.mark.parametrize("changed", [{}, {"jwt_secret": KNOWN}, PROVIDER | {"jwt_audience": None}])
def test_an_api_is_checked_as_a_process_with_all_settings(changed: dict[str, Any]) -> None:
    settings = Settings(_env_file=None, **SAFE).model_copy(update=changed)
    assert list(check_settings(settings, Part.API)) == list(check_settings(settings))


def test_only_the_settings_of_a_worker_have_a_file_of_readiness() -> None:
    settings = Settings(_env_file=None, **SAFE)
    assert Part.of(settings) is Part.ALL
    assert Part.of(settings.model_copy(update={"ready_file": Path("/tmp/ready")})) is Part.WORKER


def test_every_setting_is_checked() -> None:
    """S3: each setting has a check here, or is listed as harmless."""
    judged = {name for name, _, _ in UNWISE}
    assert not judged & HARMLESS
    assert judged | HARMLESS == Settings.model_fields.keys()


def test_default_settings_on_one_machine_have_no_problems() -> None:
    settings = Settings(_env_file=None)
    states = {finding.check: finding.state for finding in check_settings(settings)}
    assert states == {"EXPORTER_JWT_SECRET": State.WARNING}


def test_shown() -> None:
    area = FindingFactory("kafka")
    findings = [
        area.ok("a", "fine"),
        area.warning("b", "few_partitions", topics="topic[3]"),
        area.problem("c", "missing_topics", topics="gone"),
    ]
    assert worst(findings) is State.PROBLEM
    assert worst([]) is State.OK
    content = json.loads(as_json(findings))
    assert content["state"] == "problem"
    assert content["findings"][1]["advice"].startswith("add partitions")
    assert content["findings"][1]["values"] == {"topics": "topic[3]"}
    console = Console(file=io.StringIO(), width=100)
    show(findings, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "topic[3]" in text
    assert text.splitlines()[-1] == "1 problem, 1 warning"
