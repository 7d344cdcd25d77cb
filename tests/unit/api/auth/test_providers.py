"""Tokens of Keycloak, Auth0 and Entra ID, with the settings and the datasets of the document about them.

The key sets and the tokens have the form that the provider gives them. The tokens are signed by a local key,
which stands in the set in place of the provider's own.
"""

import base64
import json
import re
import time
import tomllib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from api.auth.authenticator import Authenticator
from api.auth.callers import claims_for
from api.auth.signing_keys import PublishedKeys
from stream_app.datasets.models import Dataset
from tests.unit.api.auth.tokens import OTHER_RSA, RSA, refused, settings, signed
from tests.unit.producers.fake_server import FakeServer
from tests.waiting import WITHIN, patient

ROOT = Path(__file__).parents[4]
NAMES = {"keycloak": "Keycloak", "auth0": "Auth0", "entra": "Entra ID"}


@dataclass(frozen=True)
class Provider:
    """One provider: its recorded data, and an authenticator with the documented settings."""

    recorded: dict[str, Any]
    kid: str
    authenticator: Authenticator
    dataset: Dataset

    def token(self, key: Any = RSA, **changes: Any) -> str:
        now = int(time.time())
        moments = {name: now for name in ("iat", "nbf", "auth_time") if name in self.recorded["claims"]}
        claims = {**self.recorded["claims"], **moments, "exp": now + 300, **changes}
        header = {name: value for name, value in self.recorded["header"].items() if name != "alg"}
        return signed(key, self.recorded["header"]["alg"], claims, kid=self.kid, **header)


def chapter(name: str) -> tuple[dict[str, str], Dataset]:
    """Return the settings and the dataset of a provider's chapter."""
    text = (ROOT / "docs" / "identity_providers.md").read_text("utf-8")
    found = re.search(rf"^## {name}\n(.*?)^## ", text, re.DOTALL | re.MULTILINE)
    assert found is not None
    lines = re.findall(r"^EXPORTER_(\w+)=(.+)$", found[1].split("```ini\n")[1].split("```")[0], re.MULTILINE)
    content = tomllib.loads(found[1].split("```toml\n")[1].split("```")[0])["datasets"]["orders"]
    return {key.lower(): value for key, value in lines}, Dataset(name="orders", table="orders", **content)


@pytest.fixture(params=NAMES)
async def identity(request: pytest.FixtureRequest, provider: FakeServer) -> AsyncIterator[Provider]:
    recorded = json.loads((Path(__file__).parent / "providers" / f"{request.param}.json").read_text("utf-8"))
    own = RSA.as_dict(private=False)
    key = recorded["jwks"]["keys"][recorded["signs"]]
    assert {"kty", "use", "kid", "n", "e", "x5c", "x5t"} <= key.keys()
    key |= {"n": own["n"], "e": own["e"]}
    # Entra does not state the algorithm. The certificates are left as they are: no key is read from them.
    assert key.get("alg", "RS256") == "RS256"
    provider.add("/keys", 200, recorded["jwks"])
    fields, dataset = chapter(NAMES[request.param])
    documented = settings(**fields)
    assert documented.jwt_jwks_url is not None
    assert documented.jwt_jwks_url.startswith(documented.jwt_issuer or "-") or request.param == "entra"
    async with httpx2.AsyncClient(timeout=patient(WITHIN)) as http:
        keys = PublishedKeys(f"{provider.url}/keys", http)
        yield Provider(recorded, key["kid"], Authenticator(documented, keys), dataset)


async def test_an_access_token_has_user_roles_and_claims(identity: Provider) -> None:
    user = await identity.authenticator.user(identity.token())
    wanted = identity.recorded["user"]
    assert user.id == wanted["id"]
    assert set(wanted["roles"]) <= user.roles
    claims = claims_for(user, identity.dataset)
    assert claims.pop("roles") == ["org-admin"], "only what the dataset names"
    assert {name: value if isinstance(value, list) else [value] for name, value in claims.items()} == wanted[
        "claims"
    ]


async def test_other_tokens_of_the_provider_are_no_logins(identity: Provider) -> None:
    for changes in identity.recorded["refused"].values():
        await refused(identity.authenticator, identity.token(**changes))
    await refused(identity.authenticator, identity.token(OTHER_RSA))
    await refused(identity.authenticator, identity.token(exp=int(time.time()) - 60))


async def test_a_token_of_another_recorded_key_is_refused(identity: Provider) -> None:
    """Every other key of the set is somebody else's, so a signature of the local key does not fit it."""
    others = [key["kid"] for key in identity.recorded["jwks"]["keys"] if key["kid"] != identity.kid]
    assert others
    for kid in others:
        header, payload, signature = identity.token().split(".")
        changed = json.loads(base64.urlsafe_b64decode(header + "=="))
        forged = base64.urlsafe_b64encode(json.dumps(changed | {"kid": kid}).encode()).decode().rstrip("=")
        await refused(identity.authenticator, f"{forged}.{payload}.{signature}")
