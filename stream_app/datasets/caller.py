"""The caller of an export: the user, with the roles and claims that rights depend on."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from streaming_exporter.events import ExportRequest

ROLES = "roles"
"""The claim of a request that has the caller's roles."""


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
        claims = {
            name: value if isinstance(value, str) else tuple(value) for name, value in request.claims.items()
        }
        roles = claims.pop(ROLES, ())
        return cls(request.user_id, frozenset([roles] if isinstance(roles, str) else roles), claims)

    def has_any(self, roles: tuple[str, ...] | None) -> bool:
        """Return whether the caller has one of ``roles``. ``None`` means that no role is needed."""
        return roles is None or not self.roles.isdisjoint(roles)
