"""Which brokers an admin client asks."""

from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError, KafkaError, NodeNotReadyError, RequestTimedOutError

from streaming_exporter import kafka_admin
from streaming_exporter.kafka_admin import AdminClient


class Client:
    """Knows three brokers. Those that do not answer raise an error."""

    def __init__(self, answering: set[int], error: type[KafkaError]) -> None:
        self._answering, self._error = answering, error
        self.asked: list[int] = []
        brokers = [SimpleNamespace(nodeId=number) for number in (1, 2, 3)]
        self.cluster = SimpleNamespace(controller=brokers[1], brokers=lambda: brokers)

    async def send(self, broker: int, request: object) -> int:
        self.asked.append(broker)
        if broker not in self._answering:
            raise self._error
        return broker


def admin_of(client: Client) -> Any:
    """Return an admin client that uses ``client``."""
    admin = AdminClient.__new__(AdminClient)
    admin._client = client
    return admin


async def test_the_broker_that_answered_is_asked_first_next_time() -> None:
    client = Client({3}, NodeNotReadyError)
    admin = admin_of(client)
    assert [await admin._send_request(None) for _ in range(5)] == [3] * 5
    assert client.asked[-4:] == [3] * 4
    assert len(client.asked) == len(set(client.asked)) + 4


async def test_the_controller_is_asked_first() -> None:
    client = Client({1, 2, 3}, NodeNotReadyError)
    assert await admin_of(client)._send_to_controller(None) == 2
    assert client.asked == [2]


@pytest.mark.parametrize("call", ["_send_request", "_send_to_controller"])
async def test_all_brokers_are_asked_before_a_query_fails(call: str) -> None:
    client = Client(set(), NodeNotReadyError)
    with pytest.raises(KafkaConnectionError, match=r"\[1, 2, 3\]"):
        await getattr(admin_of(client), call)(None)
    assert sorted(client.asked) == [1, 2, 3]


async def test_after_a_silent_broker_no_other_one_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time-outs of several would take longer than the caller waits."""
    monkeypatch.setattr(kafka_admin, "REFUSAL_SECONDS", -1)  # any time is too long
    client = Client(set(), RequestTimedOutError)
    with pytest.raises(RequestTimedOutError):
        await admin_of(client)._send_request(None)
    assert len(client.asked) == 1


async def test_a_request_to_a_certain_broker_goes_to_no_other() -> None:
    client = Client({1, 3}, NodeNotReadyError)
    with pytest.raises(NodeNotReadyError):
        await admin_of(client)._send_request(None, 2)
    assert client.asked == [2]
