"""Links in mails give access like passwords, so the log of the API does not contain them."""

import httpx2
import pytest
from starlette.types import Receive, Scope, Send
from structlog.testing import capture_logs

from api.middleware.request_context import RequestContext


@pytest.mark.parametrize("kind", ["links", "unsubscribe"])
async def test_the_log_of_an_unexpected_error_contains_no_link(kind: str) -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("a fault")

    transport = httpx2.ASGITransport(RequestContext(broken))
    async with httpx2.AsyncClient(transport=transport, base_url="http://api") as client:
        with capture_logs() as logs:
            await client.get(f"/exports/{kind}/c2VjcmV0.c2lnbmF0dXJl")
            await client.get("/exports/jobs/7")
    broken_lines = [line for line in logs if line["event"] == "request.crashed"]
    assert [line["path"] for line in broken_lines] == [f"/exports/{kind}/…", "/exports/jobs/7"]
    assert "c2VjcmV0" not in str(logs)
