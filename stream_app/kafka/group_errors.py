"""Raises the errors with which a group coordinator answers a request for committed offsets.

aiokafka reads the errors of partitions only. Since version 2 of OffsetFetch (Kafka 0.10.2) a coordinator that
loads its groups, has moved or refuses the principal says so once for the whole answer, which then has no
partitions: it would look like a group without committed offsets.
"""

from typing import Any

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    GroupLoadInProgressError,
    NotCoordinatorForGroupError,
    for_code,
)
from aiokafka.protocol.commit import OffsetFetchRequest

NOT_YET = (GroupLoadInProgressError, GroupCoordinatorNotAvailableError, NotCoordinatorForGroupError)
"""Errors of a group coordinator that pass: it loads its groups after a start, or the group has moved."""


def raise_group_errors(client: AIOKafkaClient) -> None:
    """Make ``client`` raise the error of a whole answer about committed offsets.

    Its callers treat that as a request that failed: the consumer looks for the coordinator again and repeats
    the request, if the error passes.
    """
    send = client.send

    async def send_and_check(node_id: Any, request: Any, **options: Any) -> Any:
        response = await send(node_id, request, **options)
        if isinstance(request, OffsetFetchRequest) and (code := getattr(response, "error_code", 0)):
            raise for_code(code)()
        return response

    client.send = send_and_check
