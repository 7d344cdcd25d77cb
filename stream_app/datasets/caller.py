"""The caller of an export: the user, with the roles and claims that rights depend on."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from streaming_exporter.events import ExportRequest

ROLES = "roles"
"""The claim of a request that has the caller's roles."""

SUBJECT = "sub"
"""The claim that is always the user's id."""

ALL_DATA = "exports:admin"
"""The role that stands for every role of a datasets file."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who an export is for.

    Attributes:
        user_id: the user.
        roles: the user's roles.
        claims: the values of other claims, by name.
    """

    user_id: str
    roles: frozenset[str] = frozenset()
    claims: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, request: ExportRequest) -> Self:
        """Return the caller whose claims ``request`` carries."""
        return cls.of_claims(request.user_id, request.claims)

    @classmethod
    def of_claims(cls, user_id: str, content: Mapping[str, Any] | None) -> Self:
        """Return the caller with the claims of a request or of a schedule: texts or lists of texts."""
        claims = {
            name: value if isinstance(value, str) else tuple(value) for name, value in (content or {}).items()
        }
        roles = claims.pop(ROLES, ())
        return cls(user_id, frozenset([roles] if isinstance(roles, str) else roles), claims)

    def has_any(self, roles: tuple[str, ...] | None) -> bool:
        """Return whether the caller has one of ``roles``. ``None`` means that no role is needed."""
        return roles is None or ALL_DATA in self.roles or not self.roles.isdisjoint(roles)

    def values_of(self, claim: str) -> tuple[str, ...]:
        """Return the values of a claim without empty ones; none if the caller lacks the claim."""
        value = self.user_id if claim == SUBJECT else self.claims.get(claim, ())
        return tuple(filter(None, (value,) if isinstance(value, str) else value))
