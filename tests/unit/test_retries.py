"""A call is repeated while a part is away, and its first try costs nothing more than the call."""

import pytest
import stamina

from stream_app.retries import retry_until_possible
from streaming_exporter.errors import Outage, Rejected


class Call:
    """Fails as often as it is told, and counts its calls."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    async def __call__(self, value: int, *, more: int = 0) -> int:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return value + more


@pytest.fixture(autouse=True)
def _no_waits() -> object:
    with stamina.set_testing(True, attempts=10):
        yield


@pytest.mark.parametrize("failures", [0, 1, 2, 5])
async def test_it_repeats_until_the_call_succeeds(failures: int) -> None:
    call = Call(*[Outage("away")] * failures)
    assert await retry_until_possible(call, 1, more=2) == 3
    assert call.calls == failures + 1


@pytest.mark.parametrize("before", [0, 1, 2])
async def test_another_error_ends_it(before: int) -> None:
    call = Call(*[Outage("away")] * before, Rejected("no"), Outage("away"))
    with pytest.raises(Rejected):
        await retry_until_possible(call, 1)
    assert call.calls == before + 1


async def test_it_waits_after_each_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr("asyncio.sleep", sleep)
    with stamina.set_testing(False):
        await retry_until_possible(Call(Outage("away"), Outage("away")), 1)
    assert len(waits) == 2
    assert min(waits) > 0
