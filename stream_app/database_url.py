"""Parses the URL of a database with all parameters of libpq, for asyncpg, which knows fewer of them.

asyncpg sends a parameter that it does not know to the server as a setting. The server refuses the parameters
of libpq at each connection, which looks as if the database were unavailable. So every parameter of libpq
(https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS) either works here, or is
refused by its name before anything starts. Settings of the server, such as ``search_path``, are passed on to
the server. Settings that the service itself sets in its connections or transactions have no effect.
Parameters of other libraries are left out if they change nothing here, and else refused by their names.
"""

import os
import re
import ssl
from dataclasses import dataclass
from difflib import get_close_matches
from urllib.parse import parse_qsl, urlencode

from stream_app.foreign_parameters import FOREIGN, IGNORED
from streaming_exporter.setting_types import is_port

CONNECT_SECONDS = 10
"""Time-out of connecting to a database, in seconds."""

BY_DRIVER = frozenset(
    {
        "dbname",
        "gsslib",
        "host",
        "krbsrvname",
        "options",
        "passfile",
        "password",
        "port",
        "service",
        "sslcert",
        "sslcrl",
        "sslkey",
        "sslmode",
        "sslnegotiation",
        "sslpassword",
        "sslrootcert",
        "ssl_max_protocol_version",
        "ssl_min_protocol_version",
        "target_session_attrs",
        "user",
    }
)
"""Parameters that asyncpg reads as libpq does. ``options`` is sent to the server unchanged."""

ANY = frozenset({"application_name", "fallback_application_name"})
"""Parameters that are accepted and have no effect, because the service sets these values itself."""

ONLY: dict[str, tuple[str, ...]] = {
    "channel_binding": ("prefer", "disable"),
    "connect_timeout": (str(CONNECT_SECONDS),),
    "client_encoding": ("auto", "utf8", "utf-8", "unicode"),
    "gssdelegation": ("0",),
    "gssencmode": ("prefer", "disable"),
    "keepalives": ("1",),
    "load_balance_hosts": ("disable",),
    "max_protocol_version": ("3.0",),
    "min_protocol_version": ("3.0",),
    "requiressl": ("0",),
    "sslcertmode": ("allow",),
    "sslcompression": ("0",),
    "sslsni": ("1",),
    "uselibpqcompat": ("true",),
}
"""Parameters that are accepted only with these values, which request what the service does anyway.

``uselibpqcompat`` is one of node-postgres.
"""

NOT_HERE = frozenset(
    {
        "hostaddr",
        "keepalives_count",
        "keepalives_idle",
        "keepalives_interval",
        "oauth_client_id",
        "oauth_client_secret",
        "oauth_issuer",
        "oauth_scope",
        "replication",
        "require_auth",
        "requirepeer",
        "scram_client_key",
        "scram_server_key",
        "servicefile",
        "sslcrldir",
        "sslkeylogfile",
        "tcp_user_timeout",
    }
)
"""Parameters of libpq that neither the driver nor this service supports."""

LIKE_PARAMETERS = frozenset(
    {"tcp_keepalives_count", "tcp_keepalives_idle", "tcp_keepalives_interval", "wal_compression"}
)
"""Settings of the server whose names only resemble parameters of libpq: they are not misspelt."""
NEAR = 0.8
"""Similarity (:mod:`difflib`) from which a name counts as a misspelt parameter."""

_SETTING = re.compile(r"(?!_pq_)[a-z_][a-z0-9_$]*(\.[a-z_][a-z0-9_$]*)*", re.IGNORECASE | re.ASCII)
"""The form of a setting's name. Names of extensions' settings have dots."""

SESSIONS = ("any", "primary", "standby", "prefer-standby", "read-write", "read-only")
_TLS_VERSIONS = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")

VALUES: dict[str, tuple[str, ...]] = {
    "gsslib": ("gssapi", "sspi"),
    "ssl_max_protocol_version": _TLS_VERSIONS,
    "ssl_min_protocol_version": _TLS_VERSIONS,
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "sslnegotiation": ("postgres", "direct"),
    "target_session_attrs": SESSIONS,
}
"""Values of parameters that the driver reads. It refuses other values at each connection."""

_SEPARATORS = {"ssl_max_protocol_version": ".", "ssl_min_protocol_version": ".", "sslmode": "-"}
"""The separator for which the driver also takes ``_`` in a value, such as ``verify_full`` and ``TLSv1_2``."""

_MEANT = {"no-verify": "require"}
"""Values of other libraries, and those that mean the same here."""


@dataclass(frozen=True, slots=True)
class DatabaseUrl:
    """A URL for asyncpg, and settings of the server."""

    dsn: str
    ignored: tuple[str, ...] = ()
    """Parameters of other libraries that were left out."""

    @classmethod
    def parse(cls, url: str, *, reads_only: bool = False) -> "DatabaseUrl":
        """Parse a URL into parameters that asyncpg knows, and settings of the server.

        ``reads_only`` means that all transactions are read only in any case. Then a session that is read only
        by default, such as that of a role for exports, is accepted for ``target_session_attrs=read-write``,
        which requests the primary.

        Raises:
            ValueError: a parameter cannot work here. The text names it.
        """
        base, mark, query = url.partition("?")
        if not mark:
            return cls(url)
        try:
            found = dict(parse_qsl(query, strict_parsing=True, keep_blank_values=True))
        except ValueError as error:
            raise ValueError("what follows its question mark is not name=value&name=value") from error
        kept, ignored = {}, []
        for name, value in found.items():
            if name in BY_DRIVER:
                kept[name] = _for_driver(name, value, reads_only=reads_only)
            elif name in ONLY:
                if value.lower() not in ONLY[name]:
                    raise ValueError(
                        f"its parameter {name}={value} cannot be honoured; allowed: "
                        f"{', '.join(ONLY[name])}, or leave it out"
                    )
            elif name.lower() in IGNORED:
                # Behind a pooler that drops such parameters, URLs with them work with any driver.
                ignored.append(name)
            elif name.lower() in FOREIGN:
                raise ValueError(
                    f"its parameter {name} is one of another library and does not work here; "
                    f"{FOREIGN[name.lower()]}"
                )
            elif name not in ANY:
                _check_setting(name)
                kept[name] = value
        _check_direct_tls(kept)
        return cls(base + ("?" + urlencode(kept) if kept else ""), tuple(ignored))


def _check_direct_tls(kept: dict[str, str]) -> None:
    """Check that direct TLS has a mode that requires TLS. The driver reads the mode as here.

    Raises:
        ValueError: the driver would refuse the mode.
    """
    if kept.get("sslnegotiation") != "direct":
        return
    if kept.get("service") or os.environ.get("PGSERVICE"):
        return  # the file of services can have the mode
    mode = kept.get("sslmode") or os.environ.get("PGSSLMODE", "")
    allowed = VALUES["sslmode"][3:]
    if mode.replace("_", "-") not in allowed:
        raise ValueError(
            "its parameter sslnegotiation=direct does not work "
            f"{f'with sslmode={mode}' if mode else 'without sslmode'}; allowed: {', '.join(allowed)}"
        )


def _check_setting(name: str) -> None:
    """Check the name of a setting that is to be sent to the server.

    Raises:
        ValueError: the name is a parameter of libpq, probably a misspelt one, or not the name of a setting.
    """
    allowed = {*BY_DRIVER, *ONLY, *ANY}
    near = []
    if "." not in name and name not in LIKE_PARAMETERS:
        near = get_close_matches(name.lower(), sorted(allowed | NOT_HERE), 1, NEAR)
    if name in NOT_HERE or not _SETTING.fullmatch(name):
        why = ""
    elif near:
        why = (
            f"; did you mean {near[0]}? If it is a setting of the server, "
            f"options=-c%20{name}%3Dvalue sends it there"
        )
    else:
        return
    raise ValueError(
        f"its parameter {name} does not work here{why}; allowed: {', '.join(sorted(allowed))}, "
        "and settings of the server such as search_path"
    )


def _for_driver(name: str, value: str, *, reads_only: bool) -> str:
    """Check the value of a parameter that asyncpg reads, and return the value for it. It ignores empty ones.

    Raises:
        ValueError: the driver would refuse the value.
    """
    allowed = VALUES.get(name)
    if value and allowed and value.replace("_", _SEPARATORS.get(name, "_")) not in allowed:
        written = value.lower().replace("_", "-")
        meant = _MEANT.get(value) or next((item for item in allowed if item.lower() == written), "")
        raise ValueError(
            f"its parameter {name}={value} is unknown; {f'did you mean {meant}? ' if meant else ''}"
            f"allowed: {', '.join(allowed)}"
        )
    if name == "port" and not all(map(is_port, filter(None, value.split(",")))):
        raise ValueError("its parameter port is not valid; allowed: numbers from 1 to 65535")
    if name == "target_session_attrs" and reads_only and value == "read-write":
        return "primary"
    if name == "sslrootcert" and value == "system":
        paths = ssl.get_default_verify_paths()
        if paths.cafile is None:
            raise ValueError(f"its parameter {name}=system finds no certificates here; name their file")
        return paths.cafile
    return value
