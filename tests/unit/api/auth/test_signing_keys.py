"""Keys that an identity provider publishes are fetched, cached, and used only for their purpose."""

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from joserfc.jwk import Key, OctKey, RSAKey

from api.auth.authenticator import Authenticator
from api.auth.signing_keys import PublishedKeys
from producers.tokens import sign_token
from streaming_exporter.errors import Retryable
from tests.unit.api.auth.tokens import (
    EC,
    ED,
    OTHER_RSA,
    RSA,
    SECRET,
    Published,
    claims,
    publish,
    raw,
    refused,
    settings,
    signed,
)
from tests.unit.producers.fake_server import FakeServer
from tests.waiting import at_most, patient, until_async


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


async def test_a_new_key_is_found_and_a_removed_key_is_refused(
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
    """Run a provider that answers the first call only, and accepts further calls without answering."""
    asked: list[asyncio.Event] = []
    served = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        await reader.readuntil(b"\r\n\r\n")
        asked.append(asyncio.Event())
        if len(asked) > 1:
            await asked[-1].wait()
        head = f"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {len(keys)}\r\n\r\n"
        writer.write(head.encode() + keys)
        writer.close()
        await writer.wait_closed()
        served += 1

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/jwks", asked
        for answer in asked:
            answer.set()
        await until_async(lambda: served == len(asked))


async def test_a_provider_that_hangs_delays_no_token_with_a_known_key() -> None:
    document = json.dumps({"keys": [RSA.as_dict(private=False)]}).encode()
    async with httpx2.AsyncClient(timeout=patient(60)) as http, hanging(document) as (url, asked):
        keys = PublishedKeys(url, http, fresh=0, pause=0)
        authenticator = Authenticator(settings(), keys)
        token = signed(RSA, "RS256", kid="rsa-1")
        await authenticator.user(token)
        async with at_most(10):
            for _ in range(5):
                assert (await authenticator.user(token)).id == "user-1"
                await until_async(lambda: len(asked) > 1)
        assert len(asked) == 2, "all calls share one fetch"


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
    assert (await authenticator.user(token)).id == "user-1", "at once, without the pause"


@pytest.mark.parametrize("body", [b"<html>", {"no": "keys"}, []])
async def test_without_keys_the_error_is_retryable(
    provider: FakeServer, published: Published, body: Any
) -> None:
    provider.add("/jwks", 200, body)
    with pytest.raises(Retryable):
        await published().user(signed(RSA, "RS256", kid="rsa-1"))


async def test_a_public_key_is_not_used_as_a_secret(provider: FakeServer, published: Published) -> None:
    """The token is signed with HS256 and the public key, which everyone can download."""
    publish(provider, RSA)
    for form in (RSA.as_pem(private=False), RSA.as_der(private=False)):
        unsigned = raw({"alg": "HS256", "kid": "rsa-1"}, claims()).rpartition(".")[0]
        signature = base64.urlsafe_b64encode(hmac.digest(form, unsigned.encode(), hashlib.sha256))
        await refused(published(), f"{unsigned}.{signature.decode().rstrip('=')}")


async def test_a_published_secret_is_not_used(provider: FakeServer, published: Published) -> None:
    secret = OctKey.import_key(SECRET, {"kid": "oct-1"})
    provider.add("/jwks", 200, {"keys": [secret.as_dict(private=True), RSA.as_dict(private=False)]})
    await refused(published(), signed(secret, "HS256", kid="oct-1"))


async def test_the_secret_is_not_used_beside_published_keys(
    provider: FakeServer, published: Published
) -> None:
    publish(provider, RSA)
    await refused(published(), sign_token(settings(), "user-1"))


async def test_a_key_is_used_only_with_its_published_algorithm_and_use(
    provider: FakeServer, published: Published
) -> None:
    pinned = RSAKey.import_key(RSA.as_dict(private=True), {"kid": "rsa-1", "alg": "RS256"})
    encrypting = RSAKey.import_key(OTHER_RSA.as_dict(private=True), {"kid": "rsa-2", "use": "enc"})
    publish(provider, pinned, encrypting)
    authenticator = published()
    await authenticator.user(signed(RSA, "RS256", kid="rsa-1"))
    await refused(authenticator, signed(RSA, "PS256", kid="rsa-1"))
    await refused(authenticator, signed(OTHER_RSA, "RS256", kid="rsa-2"))


async def test_keys_in_token_headers_are_ignored(provider: FakeServer, published: Published) -> None:
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

    async def read_again() -> bool:
        assert (await authenticator.user(signed(RSA, "RS256", kid="rsa-1"))).id == "user-1"
        return len(provider.seen) > 1

    await until_async(read_again)
    assert await read_again()


async def test_an_endless_set_is_not_read_to_its_end() -> None:
    """S19"""
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 65_536
            yield b" " * 65_536

    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, content=endless()))
    async with httpx2.AsyncClient(transport=transport) as http:
        keys = PublishedKeys("https://id.example.com/jwks", http)
        with pytest.raises(Retryable):
            await keys.find({"alg": "RS256"})
    assert sent < 2 * 2**20
