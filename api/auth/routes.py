"""The call that returns the user of the token, as this service understands the token."""

import math
from datetime import UTC, datetime

from fastapi import APIRouter
from pydantic import BaseModel

from api.auth.authenticator import CurrentUser
from api.documented_route import DocumentedRoute
from api.errors import problem_responses

router = APIRouter(prefix="/exports", tags=["users"], route_class=DocumentedRoute)


class CurrentUserView(BaseModel):
    """The user's id and roles, from the claims that EXPORTER_JWT_USER_CLAIM and _ROLES_CLAIM name."""

    user_id: str
    roles: list[str]
    expires_at: datetime | None


@router.get(
    "/me",
    operation_id="getCurrentUser",
    response_model=CurrentUserView,
    responses=problem_responses(401, 429, 500, 503),
)
async def get_current_user(user: CurrentUser) -> CurrentUserView:
    """The user and the roles of your token.

    Use it to check that the identity provider writes the expected claims into its access tokens.
    """
    ends = None if math.isinf(user.expires) else datetime.fromtimestamp(user.expires, UTC)
    return CurrentUserView(user_id=user.id, roles=sorted(user.roles), expires_at=ends)
