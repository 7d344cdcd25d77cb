"""How far a listener may be behind."""

from uuid import uuid4

from api.feed import MAX_WAITING, Subscription, Update


def offer(subscription: Subscription, count: int) -> None:
    for _ in range(count):
        subscription.offer(Update(uuid4(), "1.0.0.0", False, "{}"))


async def test_what_a_listener_is_told_at_first_does_not_count() -> None:
    subscription = Subscription()
    offer(subscription, MAX_WAITING + 200)
    updates = subscription.updates()
    assert len([await anext(updates) for _ in range(MAX_WAITING + 200)]) == MAX_WAITING + 200


async def test_a_listener_that_is_hopelessly_behind_is_let_go() -> None:
    subscription = Subscription()
    offer(subscription, 5)
    updates = subscription.updates()
    await anext(updates)
    offer(subscription, MAX_WAITING + 2)
    assert [update async for update in updates] == []
