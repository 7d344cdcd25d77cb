"""Claims: which tokens of a provider are logins, and where the user and the roles are."""

import warnings
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from joserfc.jwk import OctKey, RSAKey

from api.auth.authenticator import Authenticator, User
from api.auth.signing_keys import PublishedKeys
from producers.tokens import sign_token
from tests.rows import each_row
from tests.unit.api.auth.tokens import (
    EC,
    OTHER_RSA,
    RSA,
    SECRET,
    claims,
    publish,
    raw,
    refused,
    settings,
    shared,
    signed,
)
from tests.unit.producers.fake_server import FakeServer
from tests.waiting import WITHIN, patient

MEANT = {"aud": "exports", "iss": "https://id.example.com"}
with warnings.catch_warnings(action="ignore"):
    SMALL_RSA = RSAKey.generate_key(1024, {"kid": "rsa-small"}, auto_kid=False)
    BY_SMALL_RSA = signed(SMALL_RSA, "RS256", claims(**MEANT), kid="rsa-small")


@pytest.fixture
async def strict(provider: FakeServer) -> AsyncIterator[Authenticator]:
    """An authenticator configured as for a public API."""
    publish(provider, RSA, EC, SMALL_RSA)
    configured = settings(
        jwt_jwks_url=f"{provider.url}/jwks", jwt_audience="exports", jwt_issuer="https://id.example.com"
    )
    async with httpx2.AsyncClient(timeout=patient(WITHIN)) as http:
        yield Authenticator(configured, PublishedKeys(f"{provider.url}/jwks", http))


def typed(kind: str | None, **changes: Any) -> str:
    header = {"kid": "rsa-1"} if kind is None else {"kid": "rsa-1", "typ": kind}
    return signed(RSA, "RS256", claims(**MEANT | changes), **header)


@pytest.mark.parametrize(
    ("token", "accepted"),
    [
        (typed("at+jwt"), True),
        (typed("AT+JWT"), True),
        (typed("application/at+jwt"), True),
        (typed("JWT"), True),
        (typed("JWT", typ="Bearer"), True),
        (typed("JWT", typ="Bearer", nonce="n"), True),
        (typed("at+jwt", nonce="n"), True),
        (typed("JWT", token_use="access"), True),
        (typed("JWT", aud=["other", "exports"]), True),
        (typed("JWT", aud="other"), False),
        (typed("JWT", aud=None), False),
        (typed("JWT", aud="*"), False),
        (typed("JWT", aud=["*"]), False),
        (typed("JWT", iss="https://other.example.com"), False),
        (typed("JWT", iss="https://id.example.com/"), False),
        (typed("JWT", iss=None), False),
        (typed("logout+jwt"), False),
        (typed("JWT", events={"http://schemas.openid.net/event/backchannel-logout": {}}), False),
        (typed("JWT", typ="ID"), False),
        (typed("JWT", typ="Refresh"), False),
        (typed("JWT", typ="Logout"), False),
        (typed("JWT", typ=["Bearer"]), False),
        (typed("JWT", token_use="id"), False),
        (typed("JWT", at_hash="x"), False),
        (typed("JWT", c_hash="x"), False),
        (typed("JWT", nonce="n"), False),
        (typed("dpop+jwt"), False),
        (typed("secevent+jwt"), False),
        (raw({"alg": "none", "kid": "rsa-1", "typ": "at+jwt"}, claims(**MEANT)), False),
        (signed(OctKey.import_key(SECRET), "HS256", claims(**MEANT), kid="rsa-1"), False),
        (signed(RSA, "RS256", claims(**MEANT), kid="ec-1"), False),
        (signed(OTHER_RSA, "RS256", claims(**MEANT), kid="rsa-1"), False),
        (BY_SMALL_RSA, False),
        (signed(EC, "ES256", claims(**MEANT), kid="ec-1"), True),
    ],
)
@pytest.mark.filterwarnings("ignore:Key size")
async def test_which_tokens_of_a_provider_are_logins(
    strict: Authenticator, token: str, accepted: bool
) -> None:
    """S2: the provider signs tokens of other applications and for other purposes with the same keys."""
    if accepted:
        assert (await strict.user(token)).id == "user-1"
    else:
        await refused(strict, token)


KEYCLOAK = {
    "preferred_username": "ada",
    "realm_access": {"roles": ["exports:all"]},
    "resource_access": {"my.client": {"roles": ["exports:admin"]}},
}


@each_row(
    ("user_claim", "roles_claim", "content", "user"),
    [
        ("sub", "roles", {"roles": ["exports:all"]}, ("user-1", {"exports:all"})),
        ("sub", "realm_access.roles", KEYCLOAK, ("user-1", {"exports:all"})),
        ("preferred_username", "realm_access.roles", KEYCLOAK, ("ada", {"exports:all"})),
        ("sub", "resource_access.my.client.roles", KEYCLOAK, ("user-1", {"exports:admin"})),
        ("sub", "realm_access.none", KEYCLOAK, ("user-1", set())),
        ("sub", "realm_access", KEYCLOAK, ("user-1", set())),
        ("sub", "preferred_username.x", KEYCLOAK, ("user-1", set())),
        (
            "https://example.com/user",
            "https://example.com/roles",  # Auth0
            {"https://example.com/user": "ada", "https://example.com/roles": ["exports:all"]},
            ("ada", {"exports:all"}),
        ),
        ("oid", "groups", {"oid": "ada", "groups": ["exports:all"]}, ("ada", {"exports:all"})),  # Entra
        ("sub", "scope", {"scope": "openid exports:all"}, ("user-1", {"openid", "exports:all"})),
        ("a.b", "roles", {"a.b": "first", "a": {"b": "second"}}, ("first", set())),
        ("sub", "roles", {"realm_access": {"roles": ["exports:admin"]}}, ("user-1", set())),
    ],
)
async def test_claims_are_read_from_configured_places(
    user_claim: str, roles_claim: str, content: dict[str, Any], user: tuple[str, set[str]]
) -> None:
    """P15"""
    authenticator = shared(jwt_user_claim=user_claim, jwt_roles_claim=roles_claim)
    found = await authenticator.user(signed(OctKey.import_key(SECRET), "HS256", claims(**content)))
    assert found == User(user[0], frozenset(user[1]))


@pytest.mark.parametrize(
    "content", [{}, {"oid": 5}, {"oid": ""}, {"oid": None}, {"oid": ["a"]}, {"oid": {"a": 1}}]
)
async def test_a_token_without_the_claim_of_the_user_is_refused(content: dict[str, Any]) -> None:
    """P15: ``sub`` is not used instead of the configured claim."""
    await refused(shared(jwt_user_claim="oid"), signed(OctKey.import_key(SECRET), "HS256", claims(**content)))


@pytest.mark.parametrize(
    ("user_claim", "roles_claim"),
    [("sub", "roles"), ("user.id", "realm_access.roles"), ("https://a.example/id", "https://a.example/r")],
)
async def test_a_signed_token_has_its_claims_at_the_configured_places(
    user_claim: str, roles_claim: str
) -> None:
    changed = {"jwt_user_claim": user_claim, "jwt_roles_claim": roles_claim, "jwt_audience": "*"}
    token = sign_token(settings(**changed), "ada", ["exports:all"])
    assert await shared(**changed).user(token) == User("ada", frozenset({"exports:all"}))
