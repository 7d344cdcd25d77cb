"""Who may read what tells about the service rather than about a user's jobs: its parts and its metrics."""

from fastapi import Request

from api import audit_log
from api.auth.authenticator import Authenticator
from api.errors import Problem
from stream_app.exposure import is_public
from stream_app.settings import Settings
from streaming_exporter.errors import ExporterError


def details_are_public(settings: Settings, host: str | None) -> bool:
    """Whether everybody who reaches an API that listens on ``host`` may read them."""
    if settings.probe_details == "auto":
        return not is_public(settings, host)
    return settings.probe_details == "open"


async def require_details_access(request: Request) -> None:
    """Let pass who may read them.

    Raises:
        Problem: 401 without a valid token, 403 without the role.
    """
    if request.app.state.public_details:
        return
    authenticator: Authenticator = request.app.state.services.authenticator
    user = await authenticator.bearer(request.headers.get("Authorization", ""))
    audit_log.set_actor(user)
    if not user.is_operator:
        raise Problem(
            403,
            "role_missing",
            "Metrics need the role exports:operate here, or EXPORTER_METRICS_PORT",
        )


async def can_see_details(request: Request) -> bool:
    """Whether who asks may read them."""
    try:
        await require_details_access(request)
    except (Problem, ExporterError):
        return False
    return True
