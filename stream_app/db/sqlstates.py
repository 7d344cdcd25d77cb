"""Maps the SQLSTATEs of PostgreSQL to the actions of the service. Pure.

The codes are those of PostgreSQL's appendix A (https://www.postgresql.org/docs/current/errcodes-appendix.html).
A code that is not listed has the meaning of its class: its first two characters. A class that is not listed
comes from ``RAISE`` in a function of the database: then the statement is refused.
"""

from enum import StrEnum


class Meaning(StrEnum):
    """The action of the service after an error."""

    PASSES = "passes"
    """Temporary: try again. The attempt counts, because the statement can be the cause."""
    REFUSED = "refused"
    """The statement can never succeed: fail at once with a clear text."""
    OUTAGE = "outage"
    """The server, or a part that it needs, works for no statement: wait without a limit."""
    BUG = "bug"
    """A fault of the service or of the server: log it and try again. The last attempt fails the job."""


CLASSES: dict[str, Meaning] = {
    "00": Meaning.BUG,  # success is no error
    "01": Meaning.BUG,  # nor is a warning
    "02": Meaning.BUG,  # nor that there are no rows
    "03": Meaning.BUG,  # statement not yet complete
    "08": Meaning.PASSES,  # connection; poolers use it for every error of their own
    "09": Meaning.REFUSED,  # triggered action
    "0A": Meaning.REFUSED,  # feature not supported
    "0B": Meaning.BUG,  # transaction initiation
    "0F": Meaning.REFUSED,  # large object locator
    "0L": Meaning.REFUSED,  # grantor
    "0P": Meaning.REFUSED,  # role specification
    "0Z": Meaning.REFUSED,  # diagnostics in a function
    "10": Meaning.REFUSED,  # XQuery
    "20": Meaning.REFUSED,  # CASE without a branch, in a function
    "21": Meaning.REFUSED,  # a subquery with several rows
    "22": Meaning.REFUSED,  # data
    "23": Meaning.REFUSED,  # constraints
    "24": Meaning.BUG,  # cursor state
    "25": Meaning.BUG,  # transaction state
    "26": Meaning.BUG,  # a prepared statement that does not exist, behind a pooler
    "27": Meaning.REFUSED,  # triggers
    "28": Meaning.OUTAGE,  # authorization: an operator corrects it
    "2B": Meaning.REFUSED,  # dependent privileges
    "2D": Meaning.BUG,  # transaction termination
    "2F": Meaning.REFUSED,  # SQL functions
    "34": Meaning.BUG,  # cursor name
    "38": Meaning.REFUSED,  # functions in other languages
    "39": Meaning.REFUSED,  # their calls
    "3B": Meaning.BUG,  # savepoints
    "3D": Meaning.OUTAGE,  # no such database: an operator corrects it
    "3F": Meaning.REFUSED,  # no such schema
    "40": Meaning.PASSES,  # serialization, deadlock, conflict with the recovery of a standby
    "42": Meaning.REFUSED,  # names, types, permissions
    "44": Meaning.REFUSED,  # WITH CHECK OPTION
    "53": Meaning.PASSES,  # memory, disk
    "54": Meaning.REFUSED,  # limits of PostgreSQL itself
    "55": Meaning.PASSES,  # locks, and objects that are not ready
    "57": Meaning.PASSES,  # intervention by an operator or by the server itself
    "58": Meaning.PASSES,  # errors of the operating system
    "72": Meaning.PASSES,  # snapshot too old, before PostgreSQL 17
    "F0": Meaning.OUTAGE,  # configuration file of the server
    "HV": Meaning.REFUSED,  # foreign data
    "P0": Meaning.REFUSED,  # RAISE in a function
    "XX": Meaning.BUG,  # internal error, corrupt data
}
"""By class: the first two characters of a code."""

CODES: dict[str, Meaning] = {
    "08001": Meaning.OUTAGE,  # connection of a foreign table to its server
    "08004": Meaning.OUTAGE,
    "25006": Meaning.REFUSED,  # a function of a view that tries to write
    "25P03": Meaning.PASSES,  # idle in transaction: this process stood still
    "25P04": Meaning.PASSES,  # transaction_timeout
    "40002": Meaning.REFUSED,  # a constraint, checked at the end
    "42601": Meaning.BUG,  # the service wrote the statement
    "42P02": Meaning.BUG,
    "42P03": Meaning.BUG,
    "42P05": Meaning.BUG,  # a prepared statement of another client, behind a pooler
    "42P08": Meaning.BUG,
    "42P11": Meaning.BUG,
    "42P14": Meaning.BUG,
    "53300": Meaning.OUTAGE,  # no free connection
    "53400": Meaning.REFUSED,  # such as temp_file_limit: a retry would reach it again
    "55P02": Meaning.BUG,
    "57P01": Meaning.OUTAGE,  # the server shuts down, or an administrator ended the session
    "57P02": Meaning.OUTAGE,  # it recovers from the crash of another session
    "57P03": Meaning.OUTAGE,  # it starts
    "57P04": Meaning.OUTAGE,  # the database was dropped: an operator corrects it
    "57P05": Meaning.OUTAGE,  # the session was idle for too long
    "HV001": Meaning.PASSES,  # memory
    "HV00N": Meaning.OUTAGE,  # a foreign table's server does not answer
}
"""Codes whose meaning is not that of their class.

A lost connection has no code. It is not an outage: the statement can have crashed its server process, so the
attempt must count.
"""

_VALUES = frozenset({"21", "22", "23", "54"})
"""Classes of errors that values of a message can cause in the service's tables."""

_QUEUE_FULL = "54000"
"""Also the code of a full NOTIFY queue, which an open transaction causes, not a message."""


def meaning_of(sqlstate: str | None) -> Meaning:
    """Return the meaning of an error of a statement on the source database.

    An error without a code is temporary.
    """
    if not sqlstate:
        return Meaning.PASSES
    return CODES.get(sqlstate) or CLASSES.get(sqlstate[:2], Meaning.REFUSED)


def meaning_in_state_database(sqlstate: str | None) -> Meaning:
    """Return the meaning of an error of a statement on the service's own tables.

    ``REFUSED``: these values cannot be stored, but others can. Errors of names and permissions are an outage
    there: the tables are not migrated, the role lacks a grant, or the server is read only after a failover.
    """
    meaning = meaning_of(sqlstate)
    if meaning is not Meaning.REFUSED or not sqlstate:
        return meaning
    is_value = sqlstate[:2] in _VALUES and sqlstate != _QUEUE_FULL
    return Meaning.REFUSED if is_value else Meaning.OUTAGE
