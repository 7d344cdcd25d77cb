"""The page asks for encrypted files, and shows the password of a zip archive once."""

import io
import re
from pathlib import Path

import pyrage
import pytest
import pyzipper
from playwright.sync_api import expect

from tests.e2e.browser import Visit
from tests.e2e.test_page_form import sent

pytestmark = pytest.mark.browser


def test_a_zip_archive_opens_with_the_password_that_is_shown_once(visit: Visit, customer: str) -> None:
    visit.sign_in(customer)
    page = visit.page
    visit.choose("orders", "csv")
    page.locator("summary", has_text="Encryption").click()
    page.get_by_label("Encrypt the file").select_option(label="Zip archive with a password")
    expect(page.get_by_label("Public keys", exact=True)).to_be_hidden()
    with page.expect_download() as download:
        assert sent(visit)["encrypt"] == {"zip_password": True}
    expect(page.get_by_label("Encrypt the file")).to_have_value("")  # the form begins anew
    card = visit.newest()
    card.get_by_role("button", name=re.compile("^Show the password")).click()
    expect(card.locator("code")).to_have_text(re.compile("^[a-z2-7]{26}$"))
    password = card.locator("code").inner_text()
    expect(card.get_by_role("button", name=re.compile("^Show the password"))).to_be_hidden()
    content = Path(download.value.path()).read_bytes()
    with pyzipper.AESZipFile(io.BytesIO(content)) as archive:
        archive.setpassword(password.encode())
        assert archive.read(archive.namelist()[0]).startswith(b"\xef\xbb\xbfid,")
    visit.forgiven.append("410")
    page.reload()
    again = visit.newest()
    again.get_by_role("button", name=re.compile("^Show the password")).click()
    expect(again.get_by_role("alert")).to_contain_text("shown only once")
    expect(again.locator("code")).to_be_empty()


def test_an_export_that_runs_again_is_for_the_same_keys(visit: Visit, customer: str) -> None:
    identity = pyrage.x25519.Identity.generate()
    keys = [str(identity.to_public()), str(pyrage.x25519.Identity.generate().to_public())]
    visit.sign_in(customer)
    page = visit.page
    visit.choose("orders", "csv")
    page.locator("summary", has_text="Encryption").click()
    page.get_by_label("Encrypt the file").select_option(label="For public keys (age, SSH)")
    page.get_by_label("Public keys").fill("\n ".join(keys) + "\n")
    with page.expect_download() as download:
        assert sent(visit)["encrypt"] == {"age": keys}
    content = pyrage.decrypt(Path(download.value.path()).read_bytes(), [identity])
    assert content.startswith(b"\xef\xbb\xbfid,")
    card = visit.newest()
    expect(card.get_by_role("button", name=re.compile("^Show the password"))).to_be_hidden()
    card.get_by_role("button", name=re.compile("^Edit and run again")).click()
    assert sent(visit)["encrypt"] == {"age": keys}
