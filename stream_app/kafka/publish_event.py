"""The type of functions that publish an event. It has a module of its own, which does not import Faust."""

from collections.abc import Awaitable, Callable

from streaming_exporter.events import Event

PublishEvent = Callable[[Event], Awaitable[None]]
"""Publishes an event, and returns once it is confirmed, as :meth:`.EventProducer.publish` does."""
