"""Settings are checked in one place, with clear errors (P12, P17, P19, R20)."""

import os
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError
from typer.testing import CliRunner

from producers.__main__ import cli
from producers.job_commands import open_api
from stream_app import setting_errors
from stream_app.doctor.findings import State
from stream_app.doctor.unwise_settings import check_settings
from stream_app.setting_errors import load_settings, unknown_settings, warn_of_unknown_settings
from stream_app.setting_sources import is_secret
from stream_app.settings import Settings
from streaming_exporter.errors import BadSettings, UsageError
from streaming_exporter.file_secret import FileSecret
from streaming_exporter.kafka_settings import KafkaSettings
from streaming_exporter.url_text import hide_credentials, scheme_and_hosts
from tests.built_once import command_of
from tests.rows import Row

FIELDS = Settings.model_fields
SECRETS = sorted(name for name, field in FIELDS.items() if is_secret(field))
ANY_TEXT = {"kafka_sasl_username", "smtp_username", "kafka_group", "jwt_audience", "jwt_issuer",
    "s3_sse_kms_key", "jwt_user_claim", "jwt_roles_claim",
    "oidc_client_id", "oidc_scopes", "oidc_audience", "sign_in_hint",
    "kafka_oauth_client_id", "kafka_oauth_scope", "kafka_oauth_audience", "kafka_oauth_parameters",
    "kafka_oauth_extensions",
    # Every text is a valid user id, and a valid secret if it is only compared.
    "schedule_all_users", "datasets_file", *SECRETS,
}  # fmt: skip

BAD_BY_NAME = {
    "kafka_bootstrap_servers": ["kafka://h:1", "h:0", "h:99999", "h:x", " , ", "a b:1", "user@h:1"],
    "s3_endpoint": ["http://h:9000/minio", "ftp://h", "http://", "h:99999", "http://u:p@h", "h?x=1", "a b"],
    "s3_public_endpoint": ["http://h/path", "https://h#x", "//"],
    "s3_bucket": ["x", "a/b", "-ab", "ü" * 5, "a..b"],
    "s3_key_prefix": ["a//b", "a/../b", "..", "a b", "ü", "x" * 201, "a?b"],
    "s3_region": ["eu west", "eu/1", "-"],
    "smtp_host": ["smtp://h", "h:25", "a b", "h/x", "-h"],
    "metrics_host": ["http://h", "0.0.0.0:80", "::z"],
    "mail_from": ["nobody", "@x.de", "a@", "a@b c", "ä@x.de", "a@-x.de", "a..b@x.de", "a@b@c",
        "a@xn--\N{SNOWMAN}"],
    "public_url": ["exports.example.com", "http:///x", "https://h?q", "https://h:port", "https://u@h"],
    "jwt_jwks_url": ["jwks.json", "file:///etc/passwd", "https://"],
    "oidc_issuer": ["id.example.com", "ftp://id.example.com", "https://u@id.example.com", "https://a b"],
    "oidc_origins": ["id.example.com", "https://id/path", "https://a; b"],
    "sign_in_url": ["help.html", "javascript:alert(1)", "https://"],
    "cors_origins": ["example.com", "https://h/path", "https://a, b"],
    "mail_allowed_domains": ["a b", "x@y.de", "a,/"],
    "database_url": ["mysql://h/d", "h/d", "postgresql://h:x/d", "postgresql://h:1,g:70000/d",
        "postgresql://h/a b"],
    "source_database_url": ["sqlite://", "postgres:"],
    "webhook_secret": ["x", "whsec_x", "whsec_" + "QQ" * 3],
    "webhook_previous_secret": ["x", "whsec_x", "whsec_" + "QQ" * 60],
    "webhook_allowed_hosts": ["https://h", "h:25", "*", "*.*.h", "a b", "h/x"],
    "slack_allowed_hosts": ["https://h", "h:25", "*", "*.*.h", "a b", "h/x"],
    "teams_allowed_hosts": ["https://h", "h:25", "*", "*.*.h", "a b", "h/x"],
    "webhook_denied_networks": ["net", "10.0.0.0/33", "10.0.0.1,x"],
    "kafka_ssl_cafile": ["/nowhere/ca.pem", "/"],
    "kafka_ssl_certfile": ["/nowhere/own.pem", "/"],
    "kafka_ssl_keyfile": ["/nowhere/own.key", "/"],
    "kafka_oauth_cafile": ["/nowhere/ca.pem", "/"],
    "kafka_oauth_token_url": ["token", "file:///etc/passwd", "https://"],
    "kafka_topic_prefix": ["a b", "a/", "x" * 151],
    "trusted_proxies": ["proxy", "10.0.0.0/33", "10.0.0.1,x"],
    "ready_file": ["/nowhere/at/all", "/"],
}  # fmt: skip


def bad_values(name: str) -> list[str]:
    """Return texts that the field must refuse."""
    kind, _ = setting_errors._kind(FIELDS[name].annotation, FIELDS[name].metadata)
    if get_origin(kind) is Literal:
        return ["x", "true", f"{get_args(kind)[0]}x"]
    if kind is bool:
        return ["maybe", "2", "ja"]
    if kind is int:
        return ["x", "-1", "1.5", "1e3", "nan", "9" * 30, "0x10"]
    if kind is float:
        return ["x", "-1", "nan", "inf", "-inf", "1e300", "1 s"]
    return [] if name in ANY_TEXT and name not in BAD_BY_NAME else BAD_BY_NAME[name]


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("EXPORTER_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("EXPORTER_SETTINGS_FILE", os.devnull)


@pytest.mark.parametrize("number", range(max(len(bad_values(name)) for name in FIELDS)))
def test_a_bad_value_names_the_variable_and_what_is_allowed(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P12, P17: each field is tested with each kind of bad value, and has a line of its own."""
    given = {name: values[number] for name in FIELDS if number < len(values := bad_values(name))}
    for name, value in given.items():
        monkeypatch.setenv(f"EXPORTER_{name.upper()}", value)
    with pytest.raises(BadSettings) as error:
        load_settings()
    lines = str(error.value).splitlines()
    for name, value in given.items():
        with Row(name, value):
            (line,) = [line for line in lines if line.startswith(f"EXPORTER_{name.upper()}: ")]
            assert "allowed: " in line
            shown = repr(hide_credentials(value.strip())[:200])
            assert (value not in line) if is_secret(FIELDS[name]) else (shown in line)


@pytest.mark.parametrize("name", [name for name in FIELDS if name.endswith("_port")])
@pytest.mark.parametrize("address", ["tcp://10.0.0.1:9100", "udp://[fd00::1]:53"])
def test_the_address_of_a_service_of_kubernetes_is_no_port(
    name: str, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kubernetes sets the variable in pods beside a Service such as exporter-metrics."""
    before = load_settings()
    monkeypatch.setenv(f"EXPORTER_{name.upper()}", address)
    assert load_settings() == before


def test_control_characters_are_in_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    names = sorted(f"EXPORTER_{name.upper()}" for name in FIELDS.keys() - set(SECRETS) - {"datasets_file"})
    for name in names:
        monkeypatch.setenv(name, "a\nb")
    with pytest.raises(BadSettings) as error:
        load_settings()
    assert sorted(line.partition(": ")[0] for line in str(error.value).splitlines()) == names


@given(st.dictionaries(st.sampled_from(sorted(FIELDS)), st.text(max_size=40), max_size=3))
def test_any_value_is_accepted_or_refused_with_its_name(values: dict[str, str]) -> None:
    """No parser raises another error, and each error names the variable."""
    try:
        Settings.model_validate(values)
    except ValidationError as error:
        assert all(line.startswith("EXPORTER_") for line in setting_errors.problems(error))


@pytest.mark.parametrize("value", ["", "  ", "\t"])
def test_empty_means_unset(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """R20: a blank value counts as unset too. Only an empty list of users has a meaning."""
    expected = dict(load_settings()) | {"schedule_all_users": ""}
    for name in FIELDS:
        monkeypatch.setenv(f"EXPORTER_{name.upper()}", value)
    assert dict(load_settings()) == expected


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("s3_endpoint", " HTTP://Minio:9000// ", "http://minio:9000"),
        ("s3_endpoint", "minio:9000/", "minio:9000"),
        ("s3_endpoint", "http://[::1]:9000", "http://[::1]:9000"),
        ("s3_public_endpoint", "https://files.example.com/", "https://files.example.com"),
        ("public_url", "https://Example.com/exports//", "https://example.com/exports"),
        ("kafka_bootstrap_servers", " a , b:9093 ,", "a:9092,b:9093"),
        ("kafka_bootstrap_servers", "[::1]:9092", "[::1]:9092"),
        ("kafka_security_protocol", " plaintext", "PLAINTEXT"),
        ("kafka_sasl_mechanism", "scram-sha-512", "SCRAM-SHA-512"),
        ("log_level", "debug ", "DEBUG"),
        ("log_format", "JSON", "json"),
        ("s3_secure", " TRUE ", True),
        ("s3_sse", "KMS", "kms"),
        ("s3_key_prefix", " /team-a/exports// ", "team-a/exports"),
        ("smtp_port", " 587 ", 587),
        ("mail_from", "Bücher <exports@bücher.example>", "Bücher <exports@xn--bcher-kva.example>"),
        ("mail_from", "exports@straße.example", "exports@xn--strae-oqa.example"),
        ("mail_allowed_domains", "Example.COM , x.de", "example.com,x.de"),
        ("cors_origins", "https://A.example/, http://b:1", "https://a.example,http://b:1"),
        ("jwt_issuer", "https://id.example.com/ ", "https://id.example.com/"),
    ],
)
def test_case_blanks_and_slashes_do_not_matter(
    name: str, value: str, expected: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P12, P17."""
    monkeypatch.setenv(f"EXPORTER_{name.upper()}", value)
    assert getattr(load_settings(), name) == expected


def test_all_errors_are_reported_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPORTER_SMTP_PORT", "x")
    monkeypatch.setenv("EXPORTER_S3_ENDPOINT", "http://h/x")
    with pytest.raises(BadSettings) as error:
        load_settings()
    assert len(str(error.value).splitlines()) == 2


def test_jobs_are_on_record_for_longer_than_their_files_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPORTER_RETENTION_DAYS", "400")
    with pytest.raises(
        BadSettings, match=r"EXPORTER_HISTORY_DAYS: .*400 must be more than EXPORTER_RETENTION_DAYS"
    ):
        load_settings()
    monkeypatch.setenv("EXPORTER_HISTORY_DAYS", "401")
    assert load_settings().history.days == 401


def test_a_name_without_its_key_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPORTER_S3_ENDPOINT", "https://s3.example.com")
    monkeypatch.setenv("EXPORTER_S3_ACCESS_KEY", "hidden")
    with pytest.raises(
        BadSettings, match=r"EXPORTER_S3_SECRET_KEY: it is not set.*allowed: set both"
    ) as error:
        load_settings()
    assert "hidden" not in str(error.value)


PROVIDER = {
    "OIDC_CLIENT_ID": "page",
    "OIDC_ISSUER": "https://id.example.com",
    "JWT_JWKS_URL": "https://id.example.com/jwks",
}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"OIDC_CLIENT_ID": ""}, "OIDC_CLIENT_ID: it is not set, but EXPORTER_OIDC_ISSUER is set"),
        ({"OIDC_ISSUER": ""}, "OIDC_ISSUER: it is not set"),
        ({"OIDC_ISSUER": "", "JWT_ISSUER": "*"}, "OIDC_ISSUER: it is not set"),
        ({"JWT_JWKS_URL": ""}, "JWT_JWKS_URL: it is not set"),
        ({"OIDC_ISSUER": "https://id.example.com?x=1"}, "OIDC_ISSUER: it has a query"),
        ({"OIDC_ISSUER": "http://id.example.com"}, "OIDC_ISSUER: .* does not begin with https://"),
        (
            {"OIDC_ORIGINS": "https://a.example.com, http://b.example.com"},
            "OIDC_ORIGINS: 'http://b.example.com'",
        ),
        ({"OIDC_ORIGINS": "*"}, r"OIDC_ORIGINS: '\*'"),
    ],
)
def test_a_sign_in_that_cannot_work_or_is_not_encrypted_is_refused(
    changed: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (PROVIDER | changed).items():
        monkeypatch.setenv(f"EXPORTER_{name}", value)
    with pytest.raises(BadSettings, match=said):
        load_settings()


@pytest.mark.parametrize("changed", [{}, {"OIDC_ISSUER": "", "JWT_ISSUER": PROVIDER["OIDC_ISSUER"]}])
def test_the_issuer_of_tokens_is_that_of_the_sign_in(
    changed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (PROVIDER | changed).items():
        monkeypatch.setenv(f"EXPORTER_{name}", value)
    assert load_settings().sign_in_issuer == "https://id.example.com"


# --- files


@pytest.mark.parametrize("name", SECRETS)
def test_every_secret_comes_from_a_file_too(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P19: the new value is used after the file has changed."""
    first, second = (
        f"postgresql://u:{word}@h/d" if name.endswith("_url") else word for word in ("one", "two")
    )
    if name.startswith("webhook_"):
        first, second = ("whsec_" + letter * 32 for letter in "AB")
    file = tmp_path / "secret"
    file.write_text(first + "\n")
    monkeypatch.setenv(f"EXPORTER_{name.upper()}_FILE", str(file))
    if name.startswith("s3_"):
        other = {"s3_access_key": "S3_SECRET_KEY", "s3_secret_key": "S3_ACCESS_KEY"}[name]
        monkeypatch.setenv(f"EXPORTER_{other}", "other")
    secret = getattr(load_settings(), name)
    assert isinstance(secret, FileSecret)
    assert secret.get_secret_value() == first
    replaced = tmp_path / "new"
    replaced.write_text(second + "\n")
    replaced.replace(file)
    assert secret.get_secret_value() == second
    file.unlink()
    assert secret.get_secret_value() == second, "while it is gone, the last value is the best that is known"
    assert first not in repr(secret)
    assert second not in str(secret)


@pytest.mark.parametrize("name", SECRETS)
def test_a_missing_empty_or_superfluous_file_is_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P19."""
    variable = f"EXPORTER_{name.upper()}"
    monkeypatch.setenv(f"{variable}_FILE", str(tmp_path / "nowhere"))
    with pytest.raises(BadSettings, match=rf"{variable}_FILE: .*nowhere' cannot be read .*allowed: "):
        load_settings()
    empty = tmp_path / "empty"
    empty.touch()
    monkeypatch.setenv(f"{variable}_FILE", str(empty))
    with pytest.raises(BadSettings, match=rf"{variable}_FILE: .*empty' is empty; allowed: "):
        load_settings()
    monkeypatch.setenv(variable, "hidden")
    with pytest.raises(
        BadSettings, match=rf"{variable} and {variable}_FILE are both set; allowed: "
    ) as error:
        load_settings()
    assert "hidden" not in str(error.value)


def test_the_content_of_a_file_is_checked_and_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "url").write_text("mysql://u:hidden@h/d")
    monkeypatch.setenv("EXPORTER_DATABASE_URL_FILE", str(tmp_path / "url"))
    with pytest.raises(BadSettings, match=r"EXPORTER_DATABASE_URL_FILE: .*allowed: postgresql://") as error:
        load_settings()
    assert "hidden" not in str(error.value)


def test_no_file_of_the_current_folder_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """S16: neither a foreign .env nor a foreign .local/stack.env."""
    (tmp_path / ".local").mkdir()
    for file in (tmp_path / ".env", tmp_path / ".local" / "stack.env"):
        file.write_text("EXPORTER_PUBLIC_URL=https://attacker.example\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EXPORTER_SETTINGS_FILE")
    monkeypatch.setattr("stream_app.setting_sources.VENV_SETTINGS_FILE", tmp_path / "none")
    assert load_settings().public_url == "http://127.0.0.1:8000"


def test_a_named_settings_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables of the environment take precedence, except for empty ones."""
    file = tmp_path / "settings"
    file.write_text("EXPORTER_SMTP_PORT='2525'\nEXPORTER_KAFKA_GROUP=theirs\nexporter_s3_bucket=mine\n")
    monkeypatch.setenv("EXPORTER_SETTINGS_FILE", str(file))
    monkeypatch.setenv("EXPORTER_KAFKA_GROUP", "ours")
    monkeypatch.setenv("EXPORTER_SMTP_PORT", "")
    found = load_settings()
    assert (found.smtp_port, found.kafka_group, found.s3_bucket) == (2525, "ours", "mine")
    monkeypatch.setenv("EXPORTER_SETTINGS_FILE", str(tmp_path / "nowhere"))
    with pytest.raises(BadSettings, match=r"EXPORTER_SETTINGS_FILE: .*nowhere"):
        load_settings()


def test_the_settings_file_of_a_virtual_environment_is_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "streaming-exporter.env"
    file.write_text("EXPORTER_KAFKA_GROUP='theirs'\n")
    monkeypatch.setattr("stream_app.setting_sources.VENV_SETTINGS_FILE", file)
    assert load_settings().kafka_group == "exporter"  # EXPORTER_SETTINGS_FILE names another file
    monkeypatch.delenv("EXPORTER_SETTINGS_FILE")
    assert load_settings().kafka_group == "theirs"
    monkeypatch.setattr("sys.base_prefix", sys.prefix)
    assert load_settings().kafka_group == "exporter"


HERE, THERE, GIVEN = "environment", "file", "command line"


@pytest.mark.parametrize(
    ("secret", "url", "allowed"),
    [
        (HERE, HERE, True), (THERE, THERE, True), (HERE, None, True), (THERE, None, True), (None, HERE, True),
        (HERE, GIVEN, True), (GIVEN, THERE, True), (GIVEN, HERE, True),
        (HERE, THERE, False), (THERE, HERE, False), (THERE, GIVEN, False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("variable", ["EXPORTER_TOKEN", "EXPORTER_JWT_SECRET"])
def test_a_token_is_sent_only_to_a_url_from_the_same_place(
    secret: str | None,
    url: str | None,
    allowed: bool,
    variable: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """S16."""
    lines = []
    for name, value, place in (
        (variable, "a-secret-of-at-least-32-characters", secret),
        ("EXPORTER_PUBLIC_URL", "https://api.example.com", url),
    ):
        if place == HERE:
            monkeypatch.setenv(name, value)
        elif place == THERE:
            lines.append(f"{name}={value}\n")
    (tmp_path / "settings").write_text("".join(lines))
    monkeypatch.setenv("EXPORTER_SETTINGS_FILE", str(tmp_path / "settings"))
    given = ("https://other.example" if url == GIVEN else None, "token" if secret == GIVEN else None)
    if allowed:
        with open_api(load_settings(), *given, "u"):
            pass
    else:
        with pytest.raises(UsageError, match="from the same place"):
            open_api(load_settings(), *given, "u")


# --- names


def test_a_misspelt_variable_is_reported_with_the_nearest_name(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in (
        "S3_ENDPONT",
        "JWT_SECRET_FIEL",
        "SOMETHING_ELSE",
        "API_SERVICE_HOST",
        "API_PORT_80_TCP_ADDR",
    ):
        monkeypatch.setenv(f"EXPORTER_{name}", "x")
    monkeypatch.setenv("EXPORTER_JWT_SECRET_FILE", "")
    assert unknown_settings() == {
        "EXPORTER_JWT_SECRET_FIEL": "EXPORTER_JWT_SECRET_FILE",
        "EXPORTER_S3_ENDPONT": "EXPORTER_S3_ENDPOINT",
        "EXPORTER_SOMETHING_ELSE": None,
    }
    found = {finding.check: finding for finding in check_settings(load_settings())}
    assert found["EXPORTER_S3_ENDPONT"].state is State.WARNING
    assert found["EXPORTER_S3_ENDPONT"].what.endswith("not a setting; did you mean EXPORTER_S3_ENDPOINT?")
    assert found["EXPORTER_SOMETHING_ELSE"].what == "EXPORTER_SOMETHING_ELSE is not a setting"
    warn_of_unknown_settings()
    texts = [record.getMessage() for record in caplog.records]
    assert any(text.endswith("not a setting; did you mean EXPORTER_S3_ENDPOINT?") for text in texts)


# --- commands

JOB = str(uuid4())
ARGUMENTS = {
    "destinations test": ["archive"],
    "request": ["--export-type", "ledger", "--format", "csv", "--user-id", "u"],
    "token": ["--user-id", "u"],
    "api": ["--port", "0"],
    "forget": ["--user-id", "u"],
    "cancel-all": ["--user-id", "u"],
    "schedule edit": [JOB, "--name", "n"],
    "schedule create": ["--export-type", "ledger", "--format", "csv", "--user-id", "u", "--every", "daily"],
    "datasets show": ["ledger", "--as-user", "u"],
    "dead-letters list": [],
    "dead-letters show": ["1"],
    "dead-letters redrive": ["--all"],
    **{
        name: [JOB]
        for name in ("status", "watch", "download", "cancel", "resend", "why", "rerun", "password")
    },
}


def commands() -> list[str]:
    """Return all commands, also those of groups."""
    found = []
    whole: Any = command_of(cli)
    for name in whole.list_commands(None):
        group = getattr(whole.get_command(None, name), "commands", None)
        found += [name] if group is None else [f"{name} {one}" for one in group]
    return found


BAD = {"EXPORTER_S3_ENDPOINT": "http://h:9000/minio", "EXPORTER_SMTP_PORT": "x"}


def is_clear(said: str) -> bool:
    """Return whether the output is exactly the two lines."""
    return (
        "EXPORTER_S3_ENDPOINT: 'http://h:9000/minio' was read; it has a path" in said
        and "EXPORTER_SMTP_PORT: 'x' was read; allowed: a whole number" in said
        and "Traceback" not in said
    )


@pytest.mark.parametrize("name", commands())
def test_every_command_ends_with_the_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """P12: this holds for every command."""
    for variable, value in BAD.items():
        monkeypatch.setenv(variable, value)
    needs_job = name.startswith("schedule ") and name != "schedule list"
    result = CliRunner().invoke(cli, [*name.split(), *ARGUMENTS.get(name, [JOB] if needs_job else [])])
    assert result.exit_code == 2, result.output
    assert is_clear(result.output), result.output


URLS_WITH_SECRETS = [
    "{scheme}://user:s3cret@h.example.com:x/d",
    "{scheme}://user@srv:s3cret@h.example.com/d d",
    "{scheme}://s3cret@h.example.com:99999",
    "{scheme}://user:s3cret/more@h.example.com/d",
    "{scheme}://user:s3cret?more@h.example.com/d",
    "{scheme}://user:more#s3cret@h.example.com/d",
    "{scheme}://us@er:s3cret#more@h.example.com/d",
    "{scheme}://user:'s3cret'\"s3cret@h:x",
    "{scheme}://h.example.com/d?user=u@srv&password=s3cret&sslmod=require",
    "{scheme}://h.example.com:x/d?password=s3cret@s3cret",
    "{scheme}://h.example.com:x/d#s3cret",
    "{scheme}://u:p@h.example.com,s3cret@h:x/d",
    "user:s3cret@h.example.com:9000/d",
    "h.example.com:x?key=s3cret",
]


def refused_without_secret(names: Iterable[str], url: str) -> set[str]:
    """Set all these settings to ``url``; return those that are refused."""
    refused = set()
    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            patch.setenv(f"EXPORTER_{name.upper()}", url)
        for load in (load_settings, KafkaSettings.from_environment):
            try:
                load()
            except BadSettings as error:
                assert "s3cret" not in str(error), (names, url)
                refused |= {line.partition(":")[0] for line in str(error).splitlines()}
    return {name.removeprefix("EXPORTER_").lower() for name in refused}


@cache
def refused_alone() -> set[str]:
    """Return the settings of which a URL is refused although all others have their defaults."""
    urls = [form.format(scheme="https") for form in (URLS_WITH_SECRETS[0], URLS_WITH_SECRETS[-1])]
    return {name for url in urls for name in FIELDS if refused_without_secret([name], url)}


@pytest.mark.parametrize("form", URLS_WITH_SECRETS)
def test_no_error_of_a_setting_shows_a_secret_in_a_url(form: str) -> None:
    """A secret stands in every place of a URL in which it can stand, in every setting. None is printed."""
    refused = set()
    for scheme in ("postgresql", "https", "wrong"):
        refused |= refused_without_secret(FIELDS, form.format(scheme=scheme))
    assert {"database_url", "public_url", "s3_endpoint", "kafka_bootstrap_servers", "cors_origins"} <= refused
    left = FIELDS.keys() - refused  # without the others, so that they are compared with each other
    refused_without_secret(left, form.format(scheme="https"))
    alone = left & refused_alone()  # the first comparison that fails hides the others
    assert alone
    for name in alone:
        refused_without_secret([name], form.format(scheme="https"))


def test_the_host_of_a_url_is_shown_where_it_is_clear() -> None:
    assert scheme_and_hosts("postgresql://u:p@a:5432,[::1]:1/d?x=1") == "postgresql://***@a:5432,[::1]:1"
    assert scheme_and_hosts("postgresql://a/d?user=u@srv&password=p") is None
    assert hide_credentials("https://u:p@h.example.com/path") == "https://***@h.example.com/path"
    assert hide_credentials("https://h?sig=1") == "https://h?***"
    assert hide_credentials("ada@example.com") == "ada@example.com"


def test_secrets_are_never_shown() -> None:
    assert all(isinstance(FIELDS[name].default, SecretStr | None) for name in SECRETS)
    assert {"database_url", "s3_secret_key", "smtp_password", "jwt_secret", "token"} <= set(SECRETS)


@pytest.mark.parametrize("name", ["worker", "api"])
@pytest.mark.parametrize("content", [None, "x = [", "[datasets.x]\ntabel = 'x'\n"])
def test_a_datasets_file_that_cannot_be_used_is_a_wrong_setting(
    name: str, content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """people A11: one line for each fault, with the file, and exit code 2."""
    file = tmp_path / "datasets.toml"
    if content is not None:
        file.write_text(content)
    monkeypatch.setenv("EXPORTER_DATASETS_FILE", str(file))
    monkeypatch.setenv("EXPORTER_JWT_SECRET", "x" * 40)
    result = CliRunner().invoke(cli, [name])
    assert result.exit_code == 2, result.output
    (line,) = [line for line in result.output.splitlines() if "datasets.toml" in line]
    assert "Traceback" not in result.output
    assert "EXPORTER_DATASETS_FILE" in line or "tabel" in line


@pytest.mark.parametrize("name", ["migrate", f"resend {JOB}", "forget --user-id u --yes"])
def test_a_database_that_does_not_answer_is_one_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """people A11: it names the variable of the address."""
    monkeypatch.setenv("EXPORTER_DATABASE_URL", "postgresql://nobody:secret@127.0.0.1:1/x")
    result = CliRunner().invoke(cli, name.split())
    assert result.exit_code == 1, result.output
    (line,) = result.output.strip().splitlines()
    assert line.startswith("state database: ")
    assert "EXPORTER_DATABASE_URL" in line
    assert "secret" not in line
