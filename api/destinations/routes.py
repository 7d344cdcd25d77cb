"""Calls about destinations: the list of those that a user can use, and the test of one for operators."""

import asyncio
from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from api import audit_log
from api.auth.authenticator import CurrentUser, User
from api.documented_route import DocumentedRoute
from api.errors import Problem, problem_responses
from api.operations.access import Operator
from api.services import ApiServices, InjectedServices
from stream_app.datasets.caller import Caller
from stream_app.datasets.destinations import Destination, S3Destination
from stream_app.destinations.probe import ProbeStep, probe

router = APIRouter(prefix="/exports/destinations", tags=["destinations"], route_class=DocumentedRoute)


class DestinationView(BaseModel):
    """A place that finished files can be sent to. ``label`` and ``labels`` (by language) are for people.

    ``datasets`` are the datasets and bundles that can be sent there; null means all. ``host`` is shown to
    operators only.
    """

    name: str
    kind: Literal["s3", "sftp"]
    label: str | None
    labels: dict[str, str]
    datasets: list[str] | None
    host: str | None


class Destinations(BaseModel):
    """The destinations that you can use."""

    destinations: list[DestinationView]


class TestStep(BaseModel):
    """A step of a test: `sign in`, `write`, `read` or `remove`. ``error`` is null if it worked."""

    step: str
    error: str | None


class DestinationTest(BaseModel):
    """The result of a test. The log has what the server answered."""

    ok: bool
    steps: list[TestStep]


@router.get(
    "",
    operation_id="listDestinations",
    response_model=Destinations,
    responses=problem_responses(401, 500, 503),
)
async def list_destinations(services: InjectedServices, user: CurrentUser) -> Destinations:
    """The destinations that you can send finished files to.

    A request names one in its field `destination`. Operators see all of them.
    """
    return Destinations(destinations=destinations_for(services, user, with_all=user.is_operator))


@router.post(
    "/{name}:test",
    operation_id="testDestination",
    response_model=DestinationTest,
    responses=problem_responses(401, 403, 404, 422, 500, 503),
)
async def test_destination(name: str, services: InjectedServices, user: Operator) -> DestinationTest:
    """Test a destination: sign in, write, read and remove a small file.

    The call needs the role `exports:operate` or `exports:admin`.
    """
    destination = services.datasets.destination(name)
    if destination is None:
        raise Problem(404, "not_found", "There is no such destination")
    audit_log.set_object("destination", name, owner=None)

    def run() -> list[ProbeStep]:
        return list(probe(destination, services.settings))

    steps = await asyncio.to_thread(run)
    return DestinationTest(
        ok=all(step.error is None for step in steps),
        steps=[TestStep(step=step.step, error=step.error) for step in steps],
    )


def destinations_for(services: ApiServices, user: User, *, with_all: bool = False) -> list[DestinationView]:
    """Return the destinations that the user can use, or all of them."""
    caller = Caller(user.id, user.roles)
    return [
        DestinationView(
            name=item.name,
            kind=item.kind,
            label=item.label,
            labels=dict(item.labels),
            datasets=list(item.datasets) if item.datasets is not None else None,
            host=_host(item) if user.is_operator else None,
        )
        for item in services.datasets.destinations.values()
        if with_all or item.is_for(caller)
    ]


def _host(destination: Destination) -> str | None:
    return destination.endpoint if isinstance(destination, S3Destination) else destination.host
