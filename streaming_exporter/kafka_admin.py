"""An admin client that asks another broker when one does not answer. Needs the extra ``kafka``."""

import random
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError


class AdminClient(AIOKafkaAdminClient):  # type: ignore[misc]
    """Sends the requests that any broker can answer to all known brokers in turn, until one answers.

    aiokafka sends such a request to one broker at random. For some seconds after a broker has ended the
    others still list it, so in each rolling restart of a cluster some requests would fail.
    """

    async def _send_request(self, request: Any, node_id: int | None = None) -> Any:
        if node_id is not None:
            return await super()._send_request(request, node_id)
        brokers = [broker.nodeId for broker in self._client.cluster.brokers()]
        random.shuffle(brokers)
        for broker in brokers[:-1]:
            try:
                return await super()._send_request(request, broker)
            except KafkaError:
                continue  # aiokafka has logged it
        return await super()._send_request(request, brokers[-1] if brokers else None)
