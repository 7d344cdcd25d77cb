"""Bearer tokens: what is accepted, and every way to forge one that is not."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey

from api.auth.authenticator import Authenticator, User
from api.auth.signing_keys import PublishedKeys, SharedSecret
from api.errors import Problem
from producers.tokens import sign_token
from stream_app.exposure import UnsafeSettings
from stream_app.settings import Settings
from streaming_exporter.errors import Retryable
from tests.unit.producers.fake_server import FakeServer, fake_server
from tests.waiting import at_most, patient

SECRET = "a-secret-that-is-long-enough-for-hs256-tokens"
RSA = RSAKey.generate_key(2048, {"kid": "rsa-1", "use": "sig"})
OTHER_RSA = RSAKey.generate_key(2048, {"kid": "rsa-2"})
EC = ECKey.generate_key("P-256", {"kid": "ec-1", "alg": "ES256"})
ED = OKPKey.generate_key("Ed25519", {"kid": "ed-1"})


def settings(**changes: Any) -> Settings:
    return Settings(_env_file=None, jwt_secret=SECRET, **changes)


def claims(**changes: Any) -> dict[str, Any]:
    content = {
        "sub": "user-1",
        "exp": int(time.time()) + 3600,
        **changes,
    }  # some are made when this is imported
    return {name: value for name, value in content.items() if value is not None}


def signed(key: Key, algorithm: str, content: dict[str, Any] | None = None, **header: Any) -> str:
    return jwt.encode({"alg": algorithm, **header}, content or claims(), key, algorithms=[algorithm])


def raw(header: dict[str, Any], content: Any, signature: bytes = b"") -> str:
    parts = (json.dumps(header).encode(), json.dumps(content).encode(), signature)
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


def shared(**changes: Any) -> Authenticator:
    return Authenticator(settings(**changes), SharedSecret(SECRET))


async def refused(authenticator: Authenticator, token: str) -> Problem:
    with pytest.raises(Problem) as caught:
        await authenticator.user(token)
    assert caught.value.status == 401
    assert caught.value.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
    return caught.value


# --- a shared secret ---------------------------------------------------------------------------


async def test_a_minted_token_is_accepted() -> None:
    configured = settings(jwt_audience="exporter", jwt_issuer="https://id.example.com")
    token = sign_token(configured, "user-1", ["exports:all"])
    user = await Authenticator(configured, SharedSecret(SECRET)).user(token)
    assert user == User("user-1", frozenset({"exports:all"}))


@pytest.mark.parametrize(
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


def signature_of(unsigned: str) -> str:
    digest = hmac.digest(SECRET.encode(), unsigned.encode(), hashlib.sha256)
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


async def test_an_expired_token_says_so() -> None:
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


@pytest.mark.parametrize(
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
async def test_forgeries(token: str) -> None:
    await refused(shared(), token)


@pytest.mark.parametrize(
    ("roles", "expected"),
    [
        (None, set()),
        (["exports:all", 5], {"exports:all"}),
        ("exports:all exports:admin", {"exports:all", "exports:admin"}),
        ({"exports:admin": True}, set()),
    ],
)
async def test_roles(roles: Any, expected: set[str]) -> None:
    user = await shared().user(signed(OctKey.import_key(SECRET), "HS256", claims(roles=roles)))
    assert user.roles == expected


def test_what_roles_allow() -> None:
    nobody, everything, admin, operator = (
        User("u", frozenset(roles))
        for roles in ((), ("exports:all",), ("exports:admin",), ("exports:operate",))
    )
    assert (nobody.data_owner, nobody.can_export_all) == ("u", False)
    assert (everything.data_owner, everything.can_export_all) == ("u", True)
    assert (admin.data_owner, admin.can_export_all) == (None, True)
    assert (operator.data_owner, operator.status_owner, operator.can_export_all) == ("u", None, False)
    assert (nobody.status_owner, everything.status_owner, admin.status_owner) == ("u", "u", None)


# --- a published set of keys -------------------------------------------------------------------


@pytest.fixture
async def provider() -> AsyncIterator[FakeServer]:
    with fake_server() as running:
        yield running


Published = Callable[..., Authenticator]


@pytest.fixture
async def published(provider: FakeServer) -> AsyncIterator[Published]:
    """An authenticator that trusts the keys that ``provider`` publishes."""
    async with httpx.AsyncClient() as http:

        def build(**options: float) -> Authenticator:
            return Authenticator(
                settings(jwt_jwks_url=f"{provider.url}/jwks", jwt_audience="*", jwt_issuer="*"),
                PublishedKeys(f"{provider.url}/jwks", http, **options),
            )

        yield build


def publish(provider: FakeServer, *keys: Key, **extra: Any) -> None:
    provider.add("/jwks", 200, {"keys": [key.as_dict(private=False) for key in keys], **extra})


@pytest.mark.parametrize(
    ("key", "algorithm"), [(RSA, "RS256"), (RSA, "PS256"), (EC, "ES256"), (ED, "Ed25519")]
)
async def test_published_keys(provider: FakeServer, published: Published, key: Key, algorithm: str) -> None:
    publish(provider, RSA, EC, ED)
    user = await published().user(signed(key, algorithm, kid=key.kid))
    assert user.id == "user-1"


async def test_the_set_is_fetched_once(provider: FakeServer, published: Published) -> None:
    publish(provider, RSA)
    authenticator = published()
    for _ in range(5):
        await authenticator.user(signed(RSA, "RS256", kid="rsa-1"))
    assert len(provider.seen) == 1


async def test_a_new_key_is_found_and_an_old_one_forgotten(
    provider: FakeServer, published: Published
) -> None:
    publish(provider, RSA)
    publish(provider, OTHER_RSA)
    authenticator = published(pause=0)
    await authenticator.user(signed(RSA, "RS256", kid="rsa-1"))
    await authenticator.user(signed(OTHER_RSA, "RS256", kid="rsa-2"))
    await refused(authenticator, signed(RSA, "RS256", kid="rsa-1"))


async def test_unknown_keys_do_not_flood_the_provider(provider: FakeServer, published: Published) -> None:
    publish(provider, RSA)
    authenticator = published()
    for number in range(5):
        await refused(authenticator, signed(OTHER_RSA, "RS256", kid=f"unknown-{number}"))
    assert len(provider.seen) == 1


async def test_known_keys_outlive_an_outage(provider: FakeServer, published: Published) -> None:
    publish(provider, RSA)
    provider.add("/jwks", 500)
    authenticator = published(fresh=0, pause=0)
    for _ in range(2):
        assert (await authenticator.user(signed(RSA, "RS256", kid="rsa-1"))).id == "user-1"


@asynccontextmanager
async def hanging(keys: bytes) -> AsyncIterator[tuple[str, list[asyncio.Event]]]:
    """A provider that answers once, and from then on takes calls without answering."""
    asked: list[asyncio.Event] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.append(asyncio.Event())
        if len(asked) > 1:
            await asked[-1].wait()
        head = f"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {len(keys)}\r\n\r\n"
        writer.write(head.encode() + keys)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/jwks", asked
        for answer in asked:
            answer.set()
        await asyncio.sleep(0.05)


async def test_a_provider_that_hangs_keeps_no_known_key_waiting() -> None:
    document = json.dumps({"keys": [RSA.as_dict(private=False)]}).encode()
    async with httpx.AsyncClient(timeout=patient(60)) as http, hanging(document) as (url, asked):
        keys = PublishedKeys(url, http, fresh=0, pause=0)
        authenticator = Authenticator(settings(), keys)
        token = signed(RSA, "RS256", kid="rsa-1")
        await authenticator.user(token)
        async with at_most(10):
            for _ in range(5):
                assert (await authenticator.user(token)).id == "user-1"
                await asyncio.sleep(0.02)
        assert len(asked) == 2, "one fetch goes on, whoever asks"


async def test_keys_are_not_used_for_ever(provider: FakeServer, published: Published) -> None:
    publish(provider, RSA)
    provider.add("/jwks", 500)
    authenticator = published(fresh=0, stale=0.2, pause=0)
    token = signed(RSA, "RS256", kid="rsa-1")
    await authenticator.user(token)
    await asyncio.sleep(0.25)
    with pytest.raises(Retryable, match="identity provider"):
        await authenticator.user(token)
    provider.answers.clear()
    publish(provider, RSA)
    assert (await authenticator.user(token)).id == "user-1", "at once: nobody waits for a pause to end"


@pytest.mark.parametrize("body", [b"<html>", {"no": "keys"}, []])
async def test_without_keys_nobody_is_turned_away_for_good(
    provider: FakeServer, published: Published, body: Any
) -> None:
    provider.add("/jwks", 200, body)
    with pytest.raises(Retryable):
        await published().user(signed(RSA, "RS256", kid="rsa-1"))


async def test_a_public_key_is_no_secret(provider: FakeServer, published: Published) -> None:
    """The oldest trick: sign HS256 with what everybody can download."""
    publish(provider, RSA)
    for form in (RSA.as_pem(private=False), RSA.as_der(private=False)):
        unsigned = raw({"alg": "HS256", "kid": "rsa-1"}, claims()).rpartition(".")[0]
        signature = base64.urlsafe_b64encode(hmac.digest(form, unsigned.encode(), hashlib.sha256))
        await refused(published(), f"{unsigned}.{signature.decode().rstrip('=')}")


async def test_a_published_secret_is_not_used(provider: FakeServer, published: Published) -> None:
    secret = OctKey.import_key(SECRET, {"kid": "oct-1"})
    provider.add("/jwks", 200, {"keys": [secret.as_dict(private=True), RSA.as_dict(private=False)]})
    await refused(published(), signed(secret, "HS256", kid="oct-1"))


async def test_the_secret_does_not_count_beside_published_keys(
    provider: FakeServer, published: Published
) -> None:
    publish(provider, RSA)
    await refused(published(), sign_token(settings(), "user-1"))


async def test_a_key_signs_only_as_it_is_published(provider: FakeServer, published: Published) -> None:
    pinned = RSAKey.import_key(RSA.as_dict(private=True), {"kid": "rsa-1", "alg": "RS256"})
    encrypting = RSAKey.import_key(OTHER_RSA.as_dict(private=True), {"kid": "rsa-2", "use": "enc"})
    publish(provider, pinned, encrypting)
    authenticator = published()
    await authenticator.user(signed(RSA, "RS256", kid="rsa-1"))
    await refused(authenticator, signed(RSA, "PS256", kid="rsa-1"))
    await refused(authenticator, signed(OTHER_RSA, "RS256", kid="rsa-2"))


async def test_headers_bring_no_keys_of_their_own(provider: FakeServer, published: Published) -> None:
    publish(provider, RSA)
    token = signed(OTHER_RSA, "RS256", kid="rsa-2", jwk=OTHER_RSA.as_dict(private=False))
    await refused(published(), token)
    await refused(published(), raw({"alg": "none", "kid": "rsa-1"}, claims()))


async def test_a_token_without_a_key_id(provider: FakeServer, published: Published) -> None:
    publish(provider, RSA, EC)
    assert (await published().user(signed(EC, "ES256"))).id == "user-1"


async def test_a_token_without_a_key_id_among_many(provider: FakeServer, published: Published) -> None:
    publish(provider, RSA, OTHER_RSA)
    await refused(published(), signed(RSA, "RS256"))


async def test_keys_of_unknown_types_are_ignored(provider: FakeServer, published: Published) -> None:
    odd = [{"kty": "PQC", "kid": "x"}, {"kty": "RSA"}, {"kty": ["RSA"]}, {"kty": "RSA", "n": 5}, 5, "x", None]
    provider.add("/jwks", 200, {"keys": [*odd, RSA.as_dict()]})
    assert (await published().user(signed(RSA, "RS256", kid="rsa-1"))).id == "user-1"


# --- tokens that are meant for something else --------------------------------------------------

MEANT = {"aud": "exports", "iss": "https://id.example.com"}
with warnings.catch_warnings(action="ignore"):
    SMALL_RSA = RSAKey.generate_key(1024, {"kid": "rsa-small"}, auto_kid=False)
    BY_SMALL_RSA = signed(SMALL_RSA, "RS256", claims(**MEANT), kid="rsa-small")


@pytest.fixture
async def strict(provider: FakeServer) -> AsyncIterator[Authenticator]:
    """An authenticator as a public one is configured."""
    publish(provider, RSA, EC, SMALL_RSA)
    configured = settings(
        jwt_jwks_url=f"{provider.url}/jwks", jwt_audience="exports", jwt_issuer="https://id.example.com"
    )
    async with httpx.AsyncClient() as http:
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


@pytest.mark.parametrize(
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
def test_a_key_set_needs_to_be_told_what_it_is_for(changes: dict[str, Any]) -> None:
    """S2: whoever builds the application otherwise than by the command cannot leave it out either."""
    good: dict[str, Any] = {
        "jwt_jwks_url": "https://id.example.com/jwks",
        "jwt_audience": "a",
        "jwt_issuer": "b",
    }
    Authenticator(settings(**good), SharedSecret(SECRET))
    with pytest.raises(UnsafeSettings):
        Authenticator(settings(**good).model_copy(update=changes), SharedSecret(SECRET))


@pytest.mark.parametrize(
    "body", [{"keys": []}, {"keys": [{"kty": "oct"}]}, b"{", b"[" * 100_000, b" " * (2**20 + 1), {"keys": 5}]
)
async def test_a_broken_set_never_replaces_a_good_one(
    provider: FakeServer, published: Published, body: Any
) -> None:
    """S19"""
    publish(provider, RSA)
    provider.add("/jwks", 200, body)
    authenticator = published(fresh=0, pause=0)
    for _ in range(3):
        assert (await authenticator.user(signed(RSA, "RS256", kid="rsa-1"))).id == "user-1"
        await asyncio.sleep(0.05)
    assert len(provider.seen) > 1


async def test_an_endless_set_is_not_read_to_its_end() -> None:
    """S19"""
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 65_536
            yield b" " * 65_536

    transport = httpx.MockTransport(lambda _: httpx.Response(200, content=endless()))
    async with httpx.AsyncClient(transport=transport) as http:
        keys = PublishedKeys("https://id.example.com/jwks", http)
        with pytest.raises(Retryable):
            await keys.find({"alg": "RS256"})
    assert sent < 2 * 2**20


# --- where the claims are ----------------------------------------------------------------------

KEYCLOAK = {
    "preferred_username": "ada",
    "realm_access": {"roles": ["exports:all"]},
    "resource_access": {"my.client": {"roles": ["exports:admin"]}},
}


@pytest.mark.parametrize(
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
async def test_claims_are_where_the_provider_puts_them(
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
    """P15: nobody becomes ``sub`` where another claim was to say who it is."""
    await refused(shared(jwt_user_claim="oid"), signed(OctKey.import_key(SECRET), "HS256", claims(**content)))


@pytest.mark.parametrize(
    ("user_claim", "roles_claim"),
    [("sub", "roles"), ("user.id", "realm_access.roles"), ("https://a.example/id", "https://a.example/r")],
)
async def test_a_minted_token_has_its_claims_where_they_are_looked_for(
    user_claim: str, roles_claim: str
) -> None:
    changed = {"jwt_user_claim": user_claim, "jwt_roles_claim": roles_claim, "jwt_audience": "*"}
    token = sign_token(settings(**changed), "ada", ["exports:all"])
    assert await shared(**changed).user(token) == User("ada", frozenset({"exports:all"}))


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
