"""Calls for operators about dead letters: list, show, redrive, discard."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query

from api import audit_log
from api.documented_route import DocumentedRoute
from api.errors import Problem, problem_responses
from api.operations.access import Operator
from api.operations.schemas import DeadLetterChoice, DeadLetterList, DeadLetterResults, DeadLetterView
from api.services import InjectedServices
from api.time_limits import since_moment, until_moment
from stream_app.kafka.dead_letter_topic import Selection

router = APIRouter(prefix="/exports/dead-letters", tags=["operations"], route_class=DocumentedRoute)

_PROBLEMS = problem_responses(401, 403, 422, 500, 503)


@router.get(
    "",
    operation_id="listDeadLetters",
    response_model=DeadLetterList,
    responses=_PROBLEMS,
)
async def list_dead_letters(
    services: InjectedServices,
    user: Operator,
    state: Annotated[
        Literal["new", "redriving", "redriven", "discarded"] | None, Query(description="Only in this state")
    ] = None,
    error: Annotated[str | None, Query(max_length=200, description="Only reasons with this text")] = None,
    topic: Annotated[str | None, Query(max_length=249, description="Only those from this topic")] = None,
    since: Annotated[str | None, Query(max_length=100, description="A time, a date, or `now-7d`")] = None,
    until: Annotated[str | None, Query(max_length=100, description="A time or a date")] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> DeadLetterList:
    """Messages that could not be read, newest first.

    Reads the dead-letter topic, as far as its retention goes back.

    Needs the role `exports:operate` or `exports:admin`. Texts that repeat values of a message need
    `exports:admin`, and so does the filter `error`.
    """
    if error is not None and not user.is_admin:
        raise Problem(403, "role_missing", "The filter error needs the role exports:admin", field="error")
    audit_log.set_object("dead_letters", "all", owner=None)
    now, prefix = services.clock.now(), services.settings.kafka_topic_prefix
    selection = Selection(
        since=since_moment(since, now),
        until=until_moment(until, now),
        error=error,
        topic=topic if topic is None or topic.startswith(prefix) else prefix + topic,
    )
    found, total = await services.dead_letters.newest(selection, state, limit, with_data=user.is_admin)
    return DeadLetterList(total=total, dead_letters=found)


@router.get(
    "/{letter_id}",
    operation_id="getDeadLetter",
    response_model=DeadLetterView,
    responses=problem_responses(401, 403, 404, 422, 500, 503),
)
async def get_dead_letter(letter_id: str, services: InjectedServices, user: Operator) -> DeadLetterView:
    """One message that could not be read.

    `key`, `headers` and `value` need the role `exports:admin`; text, or `{"hex": …}`.
    """
    audit_log.set_object("dead_letter", letter_id, owner=None)
    found = await services.dead_letters.find(letter_id)
    if found is None:
        raise Problem(404, "not_found", "There is no such dead letter, or its topic has deleted it")
    return found.view(with_data=user.is_admin, whole=True)


@router.post(
    ":redrive",
    operation_id="redriveDeadLetters",
    response_model=DeadLetterResults,
    responses=_PROBLEMS,
)
async def redrive_dead_letters(
    choice: DeadLetterChoice, services: InjectedServices, user: Operator
) -> DeadLetterResults:
    """Publish dead letters again, after their reason was fixed.

    Publishes each unchanged to its original topic, once: a letter that was handled before is refused.

    If the answer of Kafka is lost, its state stays `redriving`. `again` then repeats it; the id of a request
    names its job, so a repetition starts no second job.
    """
    _audit(choice)
    return DeadLetterResults(results=await services.dead_letters.redrive(choice, by=user.id))


@router.post(
    ":discard",
    operation_id="discardDeadLetters",
    response_model=DeadLetterResults,
    responses=_PROBLEMS,
)
async def discard_dead_letters(
    choice: DeadLetterChoice, services: InjectedServices, user: Operator
) -> DeadLetterResults:
    """Mark dead letters as done, without publishing them.

    They stay on their topic until its retention ends, but are not `new` any more.
    """
    _audit(choice)
    return DeadLetterResults(results=await services.dead_letters.discard(choice, by=user.id))


def _audit(choice: DeadLetterChoice) -> None:
    ids = ",".join(item.id for item in choice.letters[:20])
    more = f" and {len(choice.letters) - 20} more" if len(choice.letters) > 20 else ""
    audit_log.set_object("dead_letters", ids + more, owner=None)
