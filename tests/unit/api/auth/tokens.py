"""Makes tokens, valid and forged, and publishes keys."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey

from api.auth.authenticator import Authenticator
from api.auth.signing_keys import SharedSecret
from api.errors import Problem
from stream_app.settings import Settings
from tests.unit.producers.fake_server import FakeServer

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
    }  # some are made at the import
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


def signature_of(unsigned: str) -> str:
    digest = hmac.digest(SECRET.encode(), unsigned.encode(), hashlib.sha256)
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


Published = Callable[..., Authenticator]


def publish(provider: FakeServer, *keys: Key, **extra: Any) -> None:
    provider.add("/jwks", 200, {"keys": [key.as_dict(private=False) for key in keys], **extra})
