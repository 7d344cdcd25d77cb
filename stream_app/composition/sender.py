"""Creates the sender of deliveries, with a client for each channel."""

from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncEngine

from stream_app.chat_addresses import Chat
from stream_app.datasets.registry import Datasets
from stream_app.destinations.client import DestinationClient
from stream_app.jobs.job_files import JobFiles
from stream_app.notifications.channel import DeliveryClient
from stream_app.notifications.chats.client import ChatClient
from stream_app.notifications.delivery_links import DeliveryLinks
from stream_app.notifications.mail.client import CLAIM_TIMEOUTS, MailClient
from stream_app.notifications.models import Channel
from stream_app.notifications.outbox import Outbox
from stream_app.notifications.public_post import PublicPost
from stream_app.notifications.sender import POLL_SECONDS, Sender
from stream_app.notifications.webhook import WebhookClient
from stream_app.settings import Settings
from stream_app.storage.object_store import ObjectStore


def create_sender(
    settings: Settings,
    engine: AsyncEngine,
    storage: ObjectStore,
    worker: str,
    *,
    poll: float = POLL_SECONDS,
    datasets: Datasets | None = None,
) -> Sender:
    """Return the sender of deliveries, with a client for each channel that is set up."""
    links = DeliveryLinks(settings)
    clients: dict[Channel, DeliveryClient] = {}
    if settings.smtp_host is not None:
        clients[Channel.MAIL] = MailClient(settings, links, storage)
    if settings.webhook_key is not None:
        clients[Channel.WEBHOOK] = WebhookClient(settings, links)
    post = PublicPost(settings)
    clients[Channel.SLACK] = ChatClient(post, links, Chat.SLACK)
    clients[Channel.TEAMS] = ChatClient(post, links, Chat.TEAMS)
    # Longer than the send time-out and the statements around it: an expired lease means a dead sender.
    lease = timedelta(seconds=CLAIM_TIMEOUTS * settings.delivery_timeout_seconds + 2)
    outbox = Outbox(engine, worker=worker, lease=lease)
    if datasets is not None:
        files = JobFiles(engine, lambda key: storage.run_in_thread(storage.read, key))
        clients[Channel.DESTINATION] = DestinationClient(settings, outbox, storage, files, datasets)
    return Sender(outbox, clients, settings, poll=poll)
