"""Parameters of a database's URL: each of libpq's works, or is refused by its name (cases P4, P5)."""

import re
import ssl
from pathlib import Path

import asyncpg
import pytest
from asyncpg.connect_utils import _parse_connect_dsn_and_args
from structlog.testing import capture_logs

from stream_app.database_url import ANY, BY_DRIVER, NOT_HERE, ONLY, SESSIONS, VALUES, DatabaseUrl
from stream_app.exports.live_datasets import open_datasets
from stream_app.foreign_parameters import FOREIGN, IGNORED
from stream_app.settings import Settings
from tests.rows import each_row

BASE = "postgresql://u:p@a:5432,b:5433/shop"


@pytest.fixture(autouse=True)
def _without_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("PGSSLMODE", "PGSERVICE"):
        monkeypatch.delenv(variable, raising=False)


LIBPQ = """
host hostaddr port dbname user password passfile require_auth channel_binding connect_timeout
client_encoding options application_name fallback_application_name keepalives keepalives_idle
keepalives_interval keepalives_count tcp_user_timeout replication gssencmode sslmode requiressl
sslnegotiation sslcompression sslcert sslkey sslkeylogfile sslpassword sslcertmode sslrootcert
sslcrl sslcrldir sslsni requirepeer ssl_min_protocol_version ssl_max_protocol_version
min_protocol_version max_protocol_version krbsrvname gsslib gssdelegation scram_client_key
scram_server_key service target_session_attrs load_balance_hosts oauth_issuer oauth_client_id
oauth_client_secret oauth_scope
"""


@each_row("name", LIBPQ.split())
def test_each_parameter_of_libpq_works_or_is_refused_by_name(name: str) -> None:
    """P4: no parameter of libpq is sent to the server as a setting."""
    try:
        parsed = DatabaseUrl.parse(f"{BASE}?{name}={VALUES.get(name, ['5432'])[0]}")
    except ValueError as error:
        assert f"parameter {name}" in str(error)
    else:
        assert name in BY_DRIVER or name not in parsed.dsn


SERVER = """
DateStyle TimeZone auto_explain.log_min_duration client_min_messages default_transaction_isolation
geqo idle_in_transaction_session_timeout jit lc_numeric lock_timeout pgaudit.log plan_cache_mode role
search_path statement_timeout synchronous_commit tcp_keepalives_count tcp_keepalives_idle
tcp_keepalives_interval wal_compression work_mem
"""


@each_row("name", SERVER.split())
@each_row("reads_only", [False, True])
def test_a_setting_of_the_server_is_passed_on(name: str, reads_only: bool) -> None:
    url = f"{BASE}?{name}=a%2Cb&sslmode=disable"
    assert DatabaseUrl.parse(url, reads_only=reads_only).dsn == url


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("sslmod", "sslmode"),
        ("ssl_mode", "sslmode"),
        ("SSLMODE", "sslmode"),
        ("aplication_name", "application_name"),
        ("conect_timeout", "connect_timeout"),
        ("connecttimeout", "connect_timeout"),
        ("target_session_attr", "target_session_attrs"),
        ("passwd", "password"),
    ],
)
def test_a_misspelt_parameter_is_refused(name: str, meant: str) -> None:
    with pytest.raises(
        ValueError, match=f"parameter {name} does not work here; did you mean {meant}?"
    ) as error:
        DatabaseUrl.parse(f"{BASE}?{name}=1")
    assert f"options=-c%20{name}%3Dvalue" in str(error.value)


@each_row(
    ("query", "said"),
    [
        *((f"{name}=x", f"{name}=x is unknown; allowed: {items[0]}, ") for name, items in VALUES.items()),
        ("sslmode=no-verify", "did you mean require[?] allowed"),
        ("sslmode=REQUIRE", "did you mean require[?] allowed"),
        ("ssl_min_protocol_version=tlsv1.2", "did you mean TLSv1.2[?] allowed"),
        ("target_session_attrs=read_write", "did you mean read-write[?] allowed"),
        ("target_session_attrs=prefer_standby", "did you mean prefer-standby[?] allowed"),
        ("sslmode=verify.full", "sslmode=verify.full is unknown; allowed"),
        ("ssl_min_protocol_version=TLSv1-2", "TLSv1-2 is unknown; allowed"),
        ("sslnegotiation=direct&sslmode=prefer", "does not work with sslmode=prefer; allowed: require"),
        ("sslnegotiation=direct&sslmode=", "direct does not work without sslmode; allowed: require"),
        ("sslnegotiation=direct", "direct does not work without sslmode; allowed: require"),
        ("port=5432,x", "port is not valid"),
        ("schema=public", "parameter schema is one of another library .*; use search_path"),
        ("ssl=true", "parameter ssl is one of another library .*; use sslmode"),
        *((f"{name}=1", f"parameter {name} is one of another library") for name in FOREIGN),
        ("readOnly=true", "parameter readOnly is one of another library .*; leave it out"),
    ],
)
def test_a_value_or_a_name_of_another_library_is_refused(query: str, said: str) -> None:
    """P4: the driver or the server would refuse it at each connection, which looks like an outage."""
    with pytest.raises(ValueError, match=said):
        DatabaseUrl.parse(f"{BASE}?{query}")


def read_by_driver(url: str) -> None:
    """Read the URL as asyncpg does at each connection. It raises an error for what it refuses."""
    others = (
        "host port user password passfile database ssl service servicefile direct_tls server_settings "
        "target_session_attrs krbsrvname gsslib"
    )
    _parse_connect_dsn_and_args(dsn=url, **dict.fromkeys(others.split()))


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_values_are_accepted_exactly_if_the_driver_takes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """P4: with each separator, because the driver exchanges some of them."""
    # This machine can have no authorities for verify-full.
    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", lambda *_, **__: None)
    queries = [
        f"{name}={written}"
        for name, values in VALUES.items()
        for value in values
        for written in {value, *(re.sub("[-_.]", sign, value) for sign in "-_.")}
    ]
    queries += [f"sslnegotiation=direct&sslmode={mode}" for mode in ("", *VALUES["sslmode"], "verify_ca")]
    for query in queries:
        url = f"{BASE}?{query}"
        try:
            read_by_driver(url)
        except asyncpg.ClientConfigurationError:
            with pytest.raises(ValueError, match="its parameter"):
                DatabaseUrl.parse(url)
        else:
            assert DatabaseUrl.parse(url).dsn == url
    for name in VALUES:  # an empty value is none
        assert DatabaseUrl.parse(f"{BASE}?{name}=").dsn == f"{BASE}?{name}="


@pytest.mark.parametrize(("variable", "value"), [("PGSSLMODE", "verify_ca"), ("PGSERVICE", "shop")])
def test_direct_tls_can_have_its_mode_elsewhere(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{BASE}?sslnegotiation=direct"
    assert DatabaseUrl.parse(url + "&service=shop").dsn == url + "&service=shop"
    monkeypatch.setenv(variable, value)
    assert DatabaseUrl.parse(url).dsn == url


def test_parameters_of_other_libraries_that_change_nothing_here_are_left_out() -> None:
    """P4: a pooler can drop them, so URLs with them work elsewhere."""
    url = f"{BASE}?sslmode=disable"
    for name in IGNORED:
        parsed = DatabaseUrl.parse(f"{url}&{name}=1")
        assert (parsed.dsn, parsed.ignored) == (url, (name,))
    assert DatabaseUrl.parse(f"{url}&prepareThreshold=0&pgbouncer=true").ignored == (
        "prepareThreshold",
        "pgbouncer",
    )
    assert IGNORED.isdisjoint({*FOREIGN, *BY_DRIVER, *ONLY, *ANY, *NOT_HERE})


def test_the_log_names_parameters_that_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P4: at the start of a process, for each URL."""
    file = tmp_path / "datasets.toml"
    file.write_text('[sources.shop]\nurl_env = "SHOP_URL"\n[datasets.a]\ntable = "t"\nsource = "shop"\n')
    monkeypatch.setenv("SHOP_URL", f"{BASE}?connection_limit=5&jit=off&pool_timeout=1")
    settings = Settings(_env_file=None, datasets_file=file, database_url=f"{BASE}?pgbouncer=true")
    with capture_logs() as logged:
        open_datasets(settings)
    lines = [line for line in logged if line["event"] == "database_url.parameters_ignored"]
    assert [(line["variable"], line["parameters"]) for line in lines] == [
        ("EXPORTER_DATABASE_URL", ("pgbouncer",)),
        ("SHOP_URL", ("connection_limit", "pool_timeout")),
    ]


@pytest.mark.parametrize("name", ["", "1a", "a-b", "a b", "a.", ".a", "_pq_.x", "ä"])
def test_an_invalid_name_of_a_setting_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="does not work here; allowed: "):
        DatabaseUrl.parse(f"{BASE}?{name}=1")


def test_every_parameter_of_libpq_is_known() -> None:
    assert set(LIBPQ.split()) <= BY_DRIVER | ONLY.keys() | ANY | NOT_HERE


def test_parameters_that_request_the_driver_default_are_removed() -> None:
    for name, values in ONLY.items():
        for value in values:
            assert DatabaseUrl.parse(f"{BASE}?{name}={value}").dsn == BASE
    for name in ANY:
        assert DatabaseUrl.parse(f"{BASE}?{name}=anything").dsn == BASE


def test_the_rest_of_the_url_is_unchanged() -> None:
    url = "postgresql://u:p%40%3A@/shop?host=%2Ftmp%2Fpg&sslmode=disable"
    assert DatabaseUrl.parse(url).dsn == url
    assert DatabaseUrl.parse(BASE).dsn == BASE


def test_a_primary_is_found_by_sessions_that_are_read_only() -> None:
    """P5: the role of an export is read only by default, also on the primary."""
    url = f"{BASE}?target_session_attrs="
    assert DatabaseUrl.parse(url + "read-write", reads_only=True).dsn == url + "primary"
    for value in SESSIONS:
        assert DatabaseUrl.parse(url + value).dsn == url + value
    with pytest.raises(ValueError, match="target_session_attrs=master"):
        DatabaseUrl.parse(url + "master")


@pytest.mark.parametrize("name", ["database_url", "source_database_url"])
def test_the_settings_refuse_it_at_the_start(name: str) -> None:
    """P4: a URL is checked before anything connects, and the error does not contain its password."""
    with pytest.raises(ValueError, match="channel_binding=require cannot be honoured") as raised:
        Settings(_env_file=None, **{name: f"{BASE}?channel_binding=require"})  # type: ignore[arg-type]
    assert "u:p@" not in str(raised.value)
    url = f"{BASE}?channel_binding=prefer&sslmode=disable"
    settings = Settings(_env_file=None, **{name: url})  # type: ignore[arg-type]
    assert f"{BASE}?sslmode=disable" == (
        settings.state_dsn if name == "database_url" else settings.source_dsn
    )
