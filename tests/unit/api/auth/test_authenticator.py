"""The authenticator accepts valid tokens and refuses forged ones; roles decide what a user can do."""

import time
from typing import Any

import pytest
from joserfc.jwk import OctKey

from api.auth.authenticator import Authenticator, User
from api.auth.signing_keys import SharedSecret
from producers.tokens import sign_token
from stream_app.unsafe_settings import UnsafeSettings
from tests.rows import each_row
from tests.unit.api.auth.tokens import (
    RSA,
    SECRET,
    claims,
    raw,
    refused,
    settings,
    shared,
    signature_of,
    signed,
)


async def test_a_token_of_the_command_is_accepted() -> None:
    configured = settings(jwt_audience="exporter", jwt_issuer="https://id.example.com")
    token = sign_token(configured, "user-1", ["exports:all"])
    user = await Authenticator(configured, SharedSecret(SECRET)).user(token)
    assert user == User("user-1", frozenset({"exports:all"}))


@each_row(
    "content",
    [
        claims(exp=None),
        claims(sub=None),
        claims(sub=""),
        claims(sub=5),
        claims(sub="x" * 256),
        claims(sub="a\0b"),
        claims(sub="a\ud800b"),
        claims(exp=int(time.time()) - 1),
        claims(exp="tomorrow"),
        claims(exp=1e400),
        claims(exp=int("9" * 400)),
        claims(exp=-int("9" * 400)),
        claims(exp=1e300),
        claims(exp=-1),
        claims(exp=0),
        claims(exp=1.5),
        claims(exp=True),
        claims(exp=[]),
        claims(exp={}),
        claims(exp=""),
        claims(exp="9999999999"),
        claims(exp=253_402_300_800),
        claims(nbf=int("9" * 400)),
        claims(nbf="soon"),
        claims(iat=int(time.time()) + 86_400),
        claims(nbf=int(time.time()) + 86_400),
        [],
        "text",
    ],
)
async def test_claims_that_are_refused(content: Any) -> None:
    unsigned = raw({"alg": "HS256"}, content).rpartition(".")[0]
    await refused(shared(), f"{unsigned}.{signature_of(unsigned)}")


async def test_an_expired_token_is_refused_with_the_reason() -> None:
    token = signed(OctKey.import_key(SECRET), "HS256", claims(exp=int(time.time()) - 100))
    assert "expired" in (await refused(shared(), token)).detail


@pytest.mark.parametrize(
    ("changes", "content"),
    [
        ({"jwt_audience": "exporter"}, claims()),
        ({"jwt_audience": "exporter"}, claims(aud="another")),
        ({"jwt_audience": "exporter"}, claims(aud=["another"])),
        ({"jwt_issuer": "https://id"}, claims()),
        ({"jwt_issuer": "https://id"}, claims(iss="https://evil")),
    ],
)
async def test_audience_and_issuer_are_checked(changes: dict[str, str], content: dict[str, Any]) -> None:
    await refused(shared(**changes), signed(OctKey.import_key(SECRET), "HS256", content))


async def test_one_of_several_audiences_is_enough() -> None:
    token = signed(OctKey.import_key(SECRET), "HS256", claims(aud=["a", "exporter"]))
    assert (await shared(jwt_audience="exporter").user(token)).id == "user-1"


@each_row(
    "token",
    [
        "",
        "x",
        "..",
        "a.b.c",
        "é.é.é",
        "." * 9000,
        raw({"alg": "none"}, claims()),
        raw({"alg": "None"}, claims()),
        raw({"alg": ""}, claims()),
        raw({}, claims()),
        raw({"alg": ["HS256"]}, claims()),
        raw({"alg": "HS256"}, claims()),
        raw({"alg": "HS256"}, claims(), b"x" * 32),
        signed(OctKey.import_key("another-secret-that-is-long-enough-too"), "HS256"),
        signed(OctKey.import_key(SECRET * 2), "HS512"),
        signed(RSA, "RS256"),
    ],
)
async def test_forged_tokens_are_refused(token: str) -> None:
    await refused(shared(), token)


@pytest.mark.parametrize(
    ("roles", "expected"),
    [
        (None, set()),
        (["exports:all", 5], {"exports:all"}),
        ("exports:all exports:admin", {"exports:all", "exports:admin"}),
        ({"exports:admin": True}, set()),
        # Zitadel's form: a role in one organisation, which can be that of a customer, is none in all of them.
        ({"exports:admin": {"1042": "acme.example.com"}}, set()),
    ],
)
async def test_roles(roles: Any, expected: set[str]) -> None:
    user = await shared().user(signed(OctKey.import_key(SECRET), "HS256", claims(roles=roles)))
    assert user.roles == expected


def test_what_roles_allow() -> None:
    user, everything, admin, operator = (
        User("u", frozenset(roles))
        for roles in ((), ("exports:all",), ("exports:admin",), ("exports:operate",))
    )
    assert (user.data_owner, user.can_export_all) == ("u", False)
    assert (everything.data_owner, everything.can_export_all) == ("u", True)
    assert (admin.data_owner, admin.can_export_all) == (None, True)
    assert (operator.data_owner, operator.status_owner, operator.can_export_all) == ("u", None, False)
    assert (user.status_owner, everything.status_owner, admin.status_owner) == ("u", "u", None)


@pytest.mark.parametrize(
    ("valid", "accepted"),
    [
        ({"exp": 3_500}, True),
        ({"exp": 3_700}, False),
        ({"iat": -3_000, "exp": 500}, True),
        ({"iat": -3_700, "exp": 500}, False),
        ({"iat": 5, "exp": 3_700}, False),
    ],
)
async def test_a_token_that_is_valid_for_too_long_is_refused(valid: dict[str, int], accepted: bool) -> None:
    """S14"""
    times = {name: int(time.time()) + offset for name, offset in valid.items()}
    token = signed(OctKey.import_key(SECRET), "HS256", claims(**times))
    authenticator = shared(jwt_max_lifetime_seconds=3_600)
    if accepted:
        await authenticator.user(token)
    else:
        await refused(authenticator, token)
    await shared().user(token)


@each_row(
    "changes",
    [
        {"jwt_audience": None},
        {"jwt_issuer": None},
        {"jwt_audience": ""},
        {"jwt_jwks_url": "http://id.example.com/jwks"},
        {"jwt_jwks_url": "file:///etc/jwks"},
        {"jwt_jwks_url": "ftp://127.0.0.1/jwks"},
        {"jwt_jwks_url": "id.example.com/jwks"},
        {"jwt_jwks_url": "http://127.0.0.1.example.com/jwks"},
    ],
)
def test_a_key_set_needs_audience_issuer_and_https(changes: dict[str, Any]) -> None:
    """S2: this also holds for an application that is built without the command."""
    good: dict[str, Any] = {
        "jwt_jwks_url": "https://id.example.com/jwks",
        "jwt_audience": "a",
        "jwt_issuer": "b",
    }
    Authenticator(settings(**good), SharedSecret(SECRET))
    with pytest.raises(UnsafeSettings):
        Authenticator(settings(**good).model_copy(update=changes), SharedSecret(SECRET))
