"""An admin client that asks another broker when one does not answer. Needs the extra ``kafka``."""

import random
import time
from collections.abc import Sequence
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaConnectionError, KafkaError

REFUSAL_SECONDS = 1.0
"""Seconds within which a broker that has ended refuses a request.

A silent broker takes longer, until the time-out of the request. Then no other broker is asked: the time-outs
of several would take more time than the caller has. The caller can connect again.
"""


class AdminClient(AIOKafkaAdminClient):  # type: ignore[misc]
    """Sends requests that any broker can answer to one broker after another, until one answers.

    aiokafka sends such a request to one broker only: to a random one, or to the controller that the metadata
    name. For some seconds after a broker has ended, the metadata still list it. So some requests would fail
    in each rolling restart of a cluster.
    """

    _answered_last: int | None = None

    async def _send_request(self, request: Any, node_id: int | None = None) -> Any:
        if node_id is not None:
            return await super()._send_request(request, node_id)
        return await self._ask(self._brokers(), request)

    async def _send_to_controller(self, request: Any) -> Any:
        """Ask the controller first. With KRaft the others pass the request on to it."""
        if self._client.cluster.controller is None:
            await self._client.force_metadata_update()
        controller = self._client.cluster.controller
        brokers = self._brokers()
        if controller is not None:
            brokers.sort(key=lambda broker: broker != controller.nodeId)
        return await self._ask(brokers, request)

    def _brokers(self) -> list[int]:
        """Return the numbers of the known brokers: the one that answered last, then the others at random."""
        brokers = [broker.nodeId for broker in self._client.cluster.brokers()]
        random.shuffle(brokers)
        brokers.sort(key=lambda broker: broker != self._answered_last)
        return brokers

    async def _ask(self, brokers: Sequence[int], request: Any) -> Any:
        """Return the first answer of a broker.

        Raises:
            KafkaError: no broker answers.
        """
        began = time.monotonic()
        for broker in brokers:
            try:
                answer = await self._client.send(broker, request)
            except KafkaError:  # aiokafka has logged it
                if len(brokers) == 1 or time.monotonic() - began > REFUSAL_SECONDS:
                    raise
            else:
                self._answered_last = broker
                return answer
        raise KafkaConnectionError(f"none of the brokers {sorted(brokers)} takes requests")
