"""Sends chat messages to incoming webhooks, and classifies the answers."""

import asyncio
import json

from stream_app.chat_addresses import Chat, ChatAddress
from stream_app.notifications.channel import DeliveryFailed, DeliveryRefused, DeliveryUncertain
from stream_app.notifications.chats.message import chat_message
from stream_app.notifications.chats.slack import slack_error, slack_payload
from stream_app.notifications.chats.teams import teams_error, teams_payload, teams_status
from stream_app.notifications.delivery_links import DeliveryLinks
from stream_app.notifications.notification import Notification
from stream_app.notifications.public_post import Answer, NoAnswer, PublicPost

RETRIED = frozenset({408, 429, 500, 503})
"""Statuses by which a chat states that it has not posted the message but can do so later."""

MAX_ANSWER = 1_000
"""Bytes of an answer that are read."""

NAMES = {Chat.SLACK: "the chat", Chat.TEAMS: "Teams"}
"""How errors call the receiver. Chats beside Slack have its format, too."""


class ChatClient:
    """Posts messages about the end of jobs to one kind of chat.

    A post cannot be repeated without a second message. So what is sent and has no clear answer is uncertain.
    """

    def __init__(self, post: PublicPost, links: DeliveryLinks, chat: Chat) -> None:
        self._links = links
        self._chat = chat
        self._post = post

    async def send(self, notification: Notification) -> None:
        """Post one message. The errors are those of :meth:`.DeliveryClient.send`."""
        address = ChatAddress.of(notification.address)
        if address is None or address.chat is not self._chat:
            raise DeliveryRefused(f"the address is not one of {self._chat}")
        body = await asyncio.to_thread(self.body, notification)
        headers = {"Content-Type": "application/json; charset=utf-8", "User-Agent": "streaming-exporter"}
        try:
            answer = await self._post.post(
                address.url, body, headers, user=notification.user_id, read=MAX_ANSWER
            )
        except NoAnswer as error:
            if error.request_started:
                raise DeliveryUncertain(f"{error}; the message can have arrived") from error
            raise
        self._check(answer)

    async def close_idle(self) -> None:
        """Close the idle connections."""

    def body(self, notification: Notification) -> bytes:
        """Return the body of the call."""
        message = chat_message(notification, self._links.download(notification.delivery_id))
        payload = slack_payload(message) if self._chat is Chat.SLACK else teams_payload(message)
        return json.dumps(payload, separators=(",", ":"), ensure_ascii=False).encode()

    def _check(self, answer: Answer) -> None:
        """Raise the error of an answer that is not a success."""
        if self._chat is Chat.SLACK:
            status, code = answer.status, slack_error(answer.body)
        else:
            status, code = teams_status(answer.status, answer.body), teams_error(answer.body)
        if 200 <= status < 300:
            return
        reason = f"{NAMES[self._chat]} answered {status}" + (f" ({code})" if code else "")
        if status in RETRIED:
            raise DeliveryFailed(reason, retry_after=answer.retry_after)
        if status >= 500:  # a gateway does not know what became of the request
            raise DeliveryUncertain(f"{reason}; the message can have arrived")
        raise DeliveryRefused(reason)
