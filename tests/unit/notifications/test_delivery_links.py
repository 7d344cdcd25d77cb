"""Links are signed for one purpose and one recipient."""

from typing import Any
from uuid import uuid4

import pytest

from stream_app.notifications.delivery_links import BadLink, DeliveryLinks
from stream_app.settings import Settings


def links(**changes: Any) -> DeliveryLinks:
    known = {"public_url": "https://exports.example.com/", "link_secret": "a" * 32}
    return DeliveryLinks(Settings(_env_file=None, **known | changes))


def test_a_link_leads_back_to_its_delivery() -> None:
    delivery = uuid4()
    url = links().download(delivery)
    base, _, token = url.rpartition("/")
    assert base == "https://exports.example.com/exports/links"
    assert links().read("links", token) == delivery


def test_the_address_of_a_job_on_the_page() -> None:
    job = uuid4()
    assert links().page(job) == f"https://exports.example.com/#job-{job}"


def test_every_change_of_a_link_is_refused() -> None:
    token = links().download(uuid4()).rpartition("/")[2]
    for place, char in enumerate(token[:-1]):  # in base64 the last character has unused bits
        other = "A" if char != "A" else "B"
        with pytest.raises(BadLink):
            links().read("links", token[:place] + other + token[place + 1 :])
    for cut in (token[:-1], token[1:], token + "A", "", ".", "a.b", "\u00e4." + token):
        with pytest.raises(BadLink):
            links().read("links", cut)


def test_a_link_is_valid_for_one_purpose_and_one_secret() -> None:
    delivery = uuid4()
    token = links().download(delivery).rpartition("/")[2]
    with pytest.raises(BadLink):
        links().read("unsubscribe", token)
    with pytest.raises(BadLink):
        links(link_secret="b" * 32).read("links", token)
    with pytest.raises(BadLink):
        links(link_secret=None).read("links", token)


def test_links_stay_valid_if_the_secret_for_tokens_becomes_the_secret_for_links() -> None:
    """This holds for links signed with the secret itself, and with a key derived from it."""
    delivery, secret = uuid4(), "b" * 32
    derived = links(link_secret=None, jwt_secret=secret).download(delivery).rpartition("/")[2]
    assert links(link_secret=secret).read("links", derived) == delivery
    itself = links(link_secret=secret).download(delivery).rpartition("/")[2]
    assert links(link_secret=None, jwt_secret=secret).read("links", itself) == delivery
