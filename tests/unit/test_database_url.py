"""Parameters of a database's URL: each of libpq's works, or is refused by its name (cases P4, P5)."""

import pytest

from stream_app.database_url import ANY, BY_DRIVER, NOT_HERE, ONLY, SESSIONS, VALUES, DatabaseUrl
from stream_app.foreign_parameters import FOREIGN
from stream_app.settings import Settings

BASE = "postgresql://u:p@a:5432,b:5433/shop"

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


@pytest.mark.parametrize("name", LIBPQ.split())
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


@pytest.mark.parametrize("name", SERVER.split())
@pytest.mark.parametrize("reads_only", [False, True])
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


@pytest.mark.parametrize(
    ("query", "said"),
    [
        *((f"{name}=x", f"{name}=x is unknown; allowed: {items[0]}, ") for name, items in VALUES.items()),
        ("sslmode=no-verify", "did you mean require[?] allowed"),
        ("sslmode=REQUIRE", "did you mean require[?] allowed"),
        ("ssl_min_protocol_version=tlsv1.2", "did you mean TLSv1.2[?] allowed"),
        ("sslnegotiation=direct&sslmode=prefer", "does not work with sslmode=prefer; allowed: require"),
        ("port=5432,x", "port is not valid"),
        ("schema=public", "parameter schema is one of another library .*; use search_path"),
        ("ssl=true", "parameter ssl is one of another library .*; use sslmode"),
        ("pgbouncer=1", "allowed: true, false"),
        *((f"{name}=1", f"parameter {name} is one of another library") for name in FOREIGN),
        ("prepareThreshold=0", "parameter prepareThreshold is one of another library .*; leave it out"),
    ],
)
def test_a_value_or_a_name_of_another_library_is_refused(query: str, said: str) -> None:
    """P4: the driver or the server would refuse it at each connection, which looks like an outage."""
    with pytest.raises(ValueError, match=said):
        DatabaseUrl.parse(f"{BASE}?{query}")


def test_each_value_that_the_driver_takes_is_accepted() -> None:
    for name, values in VALUES.items():
        for value in ("", *values, *(item.replace("-", "_").replace(".", "_") for item in values)):
            if name not in ("target_session_attrs", "sslnegotiation"):
                url = f"{BASE}?{name}={value}"
                assert DatabaseUrl.parse(url).dsn == url
    both = f"{BASE}?sslmode=require&sslnegotiation=direct"
    assert DatabaseUrl.parse(both).dsn == both


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
