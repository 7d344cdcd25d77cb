"""Writes one audit line per call: actor, action, object, its owner, and outcome.

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
"""Actor of a call without a valid token."""
MAX_ROLES = 20
"""Limit of roles in a line."""

_numbers = itertools.count(1)


@dataclass(slots=True)
class AuditEntry:
    """The known facts of a call."""

    user: User | None = None
    actor: str = ANONYMOUS
    object: str | None = None
    owner: str | None = None


_current: ContextVar[AuditEntry | None] = ContextVar("audit_entry", default=None)


@contextmanager
def open_entry() -> Iterator[AuditEntry]:
    """Open the entry of the call that is served in the block."""
    entry = AuditEntry()
    token = _current.set(entry)
    try:
        yield entry
    finally:
        _current.reset(token)


def set_object(kind: str, identifier: object, *, owner: str | None) -> None:
    """Set the object of the call, such as a ``job``, and its owner."""
    if (entry := _current.get()) is not None:
        entry.object, entry.owner = f"{kind}:{identifier}", owner


def set_actor(actor: User | str) -> None:
    """Set the actor: a user, or a text for another authorization, such as the link of a delivery."""
    if (entry := _current.get()) is not None:
        entry.user, entry.actor = (actor, actor.id) if isinstance(actor, User) else (None, actor)


def write_line(entry: AuditEntry, scope: Scope, status: int) -> None:
    """Write the line of a call with the response's ``status``."""
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
        "actor": entry.actor,
        "roles": sorted(entry.user.roles)[:MAX_ROLES] if entry.user else [],
        "object": entry.object or _named(scope),
        "owner": entry.owner,
        "outcome": "allowed" if status < 400 else "refused" if status < 500 else "failed",
        "status": status,
        "client": client[0] if client else None,
    }
    # Health checks come every few seconds, also in an outage, and they read and change no data of users.
    if path in HEALTH_PATHS and (status < 400 or status == 503):
        log.debug("call.audited", **line)
    else:
        log.info("call.audited", **line)


def _named(scope: Scope) -> str | None:
    """Return the object that the path names."""
    for name, value in scope.get("path_params", {}).items():
        if name.endswith("_id"):
            return f"{name.removesuffix('_id')}:{value}"
    return None
