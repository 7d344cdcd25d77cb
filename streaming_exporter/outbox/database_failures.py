"""Errors of the outbox's database in words, without the text of its driver, for every driver. Pure."""

from collections.abc import Iterator
from ssl import SSLError

from streaming_exporter.errors import Retryable
from streaming_exporter.outbox.entries import TABLE

MISSING_STATES = {"42P01"}
MISSING_NUMBERS = {1146}
REFUSED_STATES = {"28000", "28P01", "3D000", "42501"}
REFUSED_NUMBERS = {1044, 1045, 1049, 1142, 1143, 1698}
"""SQLSTATEs of PostgreSQL and numbers of MySQL: the user, the password, the database or a right is wrong."""

_NO_TABLE = "no such table"
"""How SQLite's only error for a missing table begins. It has no code for it."""

_CONNECTION_CLASSES = ("08", "57P")
"""How SQLSTATEs of lost connections and of databases that stop begin."""


def failure_of(error: BaseException, *, place: str, creation: str) -> Retryable:
    """Return the error for a call of the database that failed.

    Args:
        error: the error of SQLAlchemy, Django, or the driver.
        place: where the database is, such as ``127.0.0.1:5432``; empty where that is not known.
        creation: what creates the tables.
    """
    where = f"the database of the outbox{place and f' ({place})'}"
    chain = list(_chain(error))
    states = {str(state) for one in chain if (state := getattr(one, "sqlstate", None))}
    numbers = {one.args[0] for one in chain if one.args and isinstance(one.args[0], int)}
    if states & MISSING_STATES or numbers & MISSING_NUMBERS or any(map(_lacks_table, chain)):
        return Retryable(f"{where} has no table {TABLE}; {creation}")
    if states & REFUSED_STATES or numbers & REFUSED_NUMBERS:
        return Retryable(
            f"{where} refuses the relay; check the user, the password, the name of the database, and "
            f"that the user has the rights to read and to change the tables {TABLE} and {TABLE}_lease"
        )
    if any(isinstance(one, SSLError) for one in chain):
        return Retryable(
            f"{where} has no TLS that the relay accepts; check its certificate and the URL's options"
        )
    if any(isinstance(one, TimeoutError) for one in chain):
        return Retryable(f"{where} does not answer in time; check that it runs there")
    if any(isinstance(one, OSError) or _is_operational(one) for one in chain) and not {
        state for state in states if not state.startswith(_CONNECTION_CLASSES)
    }:
        return Retryable(
            f"{where} cannot be reached or refuses the connection; check that it runs there, and the user, "
            "the password and the name of the database"
        )
    code = next(iter(states), type(chain[-1]).__name__)
    return Retryable(f"{where} refused a statement of the relay ({code}); its own log has the reason")


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and those that it was made from, down to the driver's."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = getattr(current, "orig", None) or current.__cause__


def _is_operational(error: BaseException) -> bool:
    """Return whether the driver says that the database, and not the statement, is the reason (PEP 249)."""
    return any(kind.__name__ in {"OperationalError", "InterfaceError"} for kind in type(error).__mro__)


def _lacks_table(error: BaseException) -> bool:
    return type(error).__module__ == "sqlite3" and str(error).startswith(_NO_TABLE)
