"""One line of the log for every call: who asked for what, whose it is, and whether they got it.

The middleware writes the line when the response starts, so no route can leave it out. Routes add what only
they know: :func:`set_object` the object and its owner, :func:`set_actor` the actor of a call without a token.
The number of a line grows by one within a process, so a gap means that lines are missing.
"""

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import structlog
from starlette.types import Scope

from api.auth.authenticator import User
from api.middleware.paths import HEALTH_PATHS, loggable

log = structlog.get_logger(__name__)

ANONYMOUS = "anonymous"
"""Who asks without a valid token."""
MAX_ROLES = 20
"""Roles that a line names."""

_numbers = itertools.count(1)


@dataclass(slots=True)
class Entry:
    """What is known so far of a call."""

    user: User | None = None
    actor: str = ANONYMOUS
    object: str | None = None
    owner: str | None = None


_current: ContextVar[Entry | None] = ContextVar("audit_entry", default=None)


@contextmanager
def open_entry() -> Iterator[Entry]:
    """The entry of the call that is served in the block."""
    made = Entry()
    token = _current.set(made)
    try:
        yield made
    finally:
        _current.reset(token)


def set_object(kind: str, identifier: object, *, owner: str | None) -> None:
    """Note the object of the call, such as a ``job``, and whose it is."""
    if (made := _current.get()) is not None:
        made.object, made.owner = f"{kind}:{identifier}", owner


def set_actor(who: User | str) -> None:
    """Note who asks: a user, or in words what else gives the right."""
    if (made := _current.get()) is not None:
        made.user, made.actor = (who, who.id) if isinstance(who, User) else (None, who)


def write_line(made: Entry, scope: Scope, status: int) -> None:
    """Write the line of a call that is answered with ``status``."""
    path: str = scope["path"]
    route = scope.get("route")
    action = getattr(route, "operation_id", None)
    if action is None and not path.startswith("/exports") and status not in (401, 403, 429):
        return  # a file of the page
    client = scope.get("client")
    line = {
        "number": next(_numbers),
        "process": os.getpid(),
        "action": action or f"{scope['method']} {loggable(path)}",
        "actor": made.actor,
        "roles": sorted(made.user.roles)[:MAX_ROLES] if made.user else [],
        "object": made.object or _named(scope),
        "owner": made.owner,
        "outcome": "allowed" if status < 400 else "refused" if status < 500 else "failed",
        "status": status,
        "client": client[0] if client else None,
    }
    # Probes come every few seconds, and tell and change nothing of anybody's.
    write = log.debug if path in HEALTH_PATHS and status < 400 else log.info
    write("call.audited", **line)


def _named(scope: Scope) -> str | None:
    """The object that the address names."""
    for name, value in scope.get("path_params", {}).items():
        if name.endswith("_id"):
            return f"{name.removesuffix('_id')}:{value}"
    return None
