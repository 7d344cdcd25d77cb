"""The user of a token is the one that the configured claims name."""

from typing import Any
from uuid import uuid4

import pytest

from producers.tokens import sign_token
from tests.integration.api.conftest import Harness, changed, client_of, running


@pytest.mark.parametrize(
    ("changes", "claims"),
    [
        ({}, {"roles": ["exports:all", "b"]}),
        ({"jwt_roles_claim": "realm_access.roles"}, {"realm_access": {"roles": ["exports:all", "b"]}}),
        (
            {"jwt_user_claim": "oid", "jwt_roles_claim": "https://a.b/roles"},
            {"https://a.b/roles": "b exports:all"},
        ),
    ],
)
async def test_the_user_of_a_token(api: Harness, changes: dict[str, Any], claims: dict[str, Any]) -> None:
    """Entry 16: the page shows this user, because it cannot know which claims have the id and the roles."""
    user = f"user-{uuid4()}"
    subject = "opaque" if "jwt_user_claim" in changes else user
    token = sign_token(api.settings, subject, claims={"oid": user, **claims})
    async with running(changed(api.settings, **changes)) as app, client_of(app, token) as client:
        answer = (await client.get("/exports/me")).json()
    assert answer.pop("expires_at") > "2026"
    assert answer == {"user_id": user, "roles": ["b", "exports:all"]}
