"""An identity provider and an authenticator that trusts it."""

from collections.abc import AsyncIterator

import httpx2
import pytest

from api.auth.authenticator import Authenticator
from api.auth.signing_keys import PublishedKeys
from tests.unit.api.auth.tokens import Published, settings
from tests.unit.producers.fake_server import FakeServer, fake_server
from tests.waiting import WITHIN, patient


@pytest.fixture
async def provider() -> AsyncIterator[FakeServer]:
    with fake_server() as running:
        yield running


@pytest.fixture
async def published(provider: FakeServer) -> AsyncIterator[Published]:
    """An authenticator that trusts the keys that ``provider`` publishes."""
    async with httpx2.AsyncClient(timeout=patient(WITHIN)) as http:

        def build(**options: float) -> Authenticator:
            return Authenticator(
                settings(jwt_jwks_url=f"{provider.url}/jwks", jwt_audience="*", jwt_issuer="*"),
                PublishedKeys(f"{provider.url}/jwks", http, **options),
            )

        yield build
