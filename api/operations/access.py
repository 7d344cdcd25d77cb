"""Who can operate the service: the roles ``exports:operate`` and ``exports:admin``."""

from typing import Annotated

from fastapi import Depends

from api.auth.authenticator import CurrentUser, User
from api.errors import Problem


async def require_operator(user: CurrentUser) -> User:
    """Return the user if they can operate the service.

    Raises:
        Problem: 403 without the role.
    """
    if not user.is_operator:
        raise Problem(403, "role_missing", "This call needs the role exports:operate or exports:admin")
    return user


Operator = Annotated[User, Depends(require_operator)]
