"""Encrypted files: another program decrypts them, errors pass, and no thread is left."""

import base64
import io
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from random import Random
from uuid import UUID

import pyrage
import pytest
import pyzipper
from hypothesis import given
from hypothesis import settings as settings_of
from hypothesis import strategies as st
from pydantic import SecretStr

from stream_app.datasets.encryption import check_encryption
from stream_app.exports.files.encryption import PIECE, AgeEncryption, Encryption, encryption_for
from stream_app.exports.files.file_limit import FileLimit
from stream_app.exports.files.passwords import FilePasswords
from stream_app.settings import Settings
from streaming_exporter.errors import Rejected, Retryable
from streaming_exporter.events import Encrypt, ExportRequest
from tests.datasets import datasets_of
from tests.rows import each_row

TIME = datetime(2026, 11, 27, 6, tzinfo=UTC)
IDENTITY = pyrage.x25519.Identity.generate()
OTHER = pyrage.x25519.Identity.generate()
SSH = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHsKLqeplhpW+uObz5dvMgjz1OxfM/XXUB+VHtZ6isGN alice@rust"
PASSWORDS = FilePasswords(b"k" * 32)
LEDGER = datasets_of("ledger")["ledger"]


def age(*identities: pyrage.x25519.Identity) -> Encryption:
    found = encryption_for(Encrypt(age=[str(one.to_public()) for one in identities]), "job", None)
    assert found is not None
    return found


def zipped() -> Encryption:
    found = encryption_for(Encrypt(zip_password=True), "job", PASSWORDS)
    assert found is not None
    return found


def opened(encryption: Encryption, content: bytes) -> bytes:
    if isinstance(encryption, AgeEncryption):
        return pyrage.decrypt(content, [IDENTITY])  # type: ignore[no-any-return]
    with pyzipper.AESZipFile(io.BytesIO(content)) as archive:
        [name] = archive.namelist()
        archive.setpassword(PASSWORDS("job").encode())
        assert name == "ledger.csv"
        return archive.read(name)  # type: ignore[no-any-return]


def apply(encryption: Encryption, chunks: Iterator[bytes]) -> Iterator[bytes]:
    return encryption.apply(chunks, name="ledger.csv", time=TIME)


@pytest.mark.parametrize("make", [lambda: age(OTHER, IDENTITY), zipped], ids=["age", "zip"])
@given(chunks=st.lists(st.binary(max_size=70_000), max_size=6), repeats=st.integers(1, 9))
def test_another_program_decrypts_the_file(make: type[Encryption], chunks: list[bytes], repeats: int) -> None:
    encryption = make()
    content = b"".join(apply(encryption, iter(chunks * repeats)))
    assert opened(encryption, content) == b"".join(chunks * repeats)


@pytest.mark.parametrize("make", [lambda: age(IDENTITY), zipped], ids=["age", "zip"])
@settings_of(max_examples=3 * settings_of().max_examples // 10)
@given(limit=st.integers(2**20, 2**21), seed=st.integers(0, 99))
def test_a_full_file_is_no_larger_than_its_limit_when_encrypted(
    make: type[Encryption], limit: int, seed: int
) -> None:
    encryption = make()
    room = encryption.room(limit)
    size = sum(len(piece) for piece in apply(encryption, iter([Random(seed).randbytes(room)])))
    assert room > limit * 0.99
    assert size <= limit
    assert FileLimit(bytes=limit).before(encryption).bytes == room


@pytest.mark.parametrize("make", [lambda: age(IDENTITY), zipped], ids=["age", "zip"])
def test_the_file_is_not_read_far_ahead(make: type[Encryption]) -> None:
    read = 0

    def chunks() -> Iterator[bytes]:
        nonlocal read
        for _ in range(100):
            read += 1
            yield Random(read).randbytes(PIECE)

    encrypted = apply(make(), chunks())
    taken = sum(len(next(encrypted)) for _ in range(3))
    assert taken > 0
    assert read < 20
    encrypted.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("make", [lambda: age(IDENTITY), zipped], ids=["age", "zip"])
@pytest.mark.parametrize("error", [Retryable("the source is away"), Rejected("too many"), MemoryError()])
def test_an_error_of_the_file_passes_as_it_is(make: type[Encryption], error: Exception) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"x" * PIECE
        raise error

    with pytest.raises(type(error)) as caught:
        list(apply(make(), chunks()))
    assert caught.value is error
    assert threads() == []


def test_a_file_that_nobody_reads_to_its_end_leaves_no_thread() -> None:
    closed = []

    def chunks() -> Iterator[bytes]:
        try:
            while True:
                yield b"x" * PIECE
        finally:
            closed.append(True)

    source = chunks()
    encrypted = apply(age(IDENTITY), source)
    next(encrypted)
    assert threads() == ["encryption"]
    encrypted.close()  # type: ignore[attr-defined]
    assert threads() == []
    source.close()  # type: ignore[attr-defined]
    assert closed == [True]


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "encryption"]


def test_no_secret_is_in_the_representation_of_an_object() -> None:
    """Representations get into logs."""
    passwords = FilePasswords(b"the key")
    zips = encryption_for(Encrypt(zip_password=True), "job", passwords)
    assert "the key" not in repr(passwords)
    assert passwords("job") not in repr(zips)


def test_each_job_has_its_own_password() -> None:
    found = {PASSWORDS(str(number)) for number in range(1_000)} | {FilePasswords(b"l" * 32)("1")}
    assert len(found) == 1_001
    assert all(len(password) == 26 and password.isalnum() for password in found)


def test_the_fingerprint_is_that_of_the_key_and_says_nothing_about_passwords() -> None:
    assert PASSWORDS.fingerprint == FilePasswords(PASSWORDS.key).fingerprint
    assert PASSWORDS.fingerprint != FilePasswords(b"l" * 32).fingerprint
    assert len(PASSWORDS.fingerprint) == 16
    passwords = [PASSWORDS(job) for job in ("", "job", *(str(UUID(int=number)) for number in range(1_000)))]
    secret = [PASSWORDS.key, *(base64.b32decode(f"{password.upper()}======") for password in passwords)]
    assert len(secret[-1]) == 16
    assert not [text for text in secret if PASSWORDS.fingerprint in text.hex()]


@pytest.mark.parametrize("secret", ["", "short", "development-secret-never-use-it-in-production"])
def test_a_weak_secret_makes_no_passwords(secret: str) -> None:
    settings = Settings(_env_file=None).model_copy(
        update={"link_secret": SecretStr(secret) if secret else None}
    )
    assert FilePasswords.of(settings) is None
    with pytest.raises(Rejected, match="EXPORTER_LINK_SECRET"):
        encryption_for(Encrypt(zip_password=True), "job", None)
    with pytest.raises(Rejected, match="EXPORTER_LINK_SECRET"):
        check_encryption(LEDGER, Encrypt(zip_password=True), has_passwords=False)


@pytest.mark.parametrize(
    "key", [str(IDENTITY.to_public()), SSH, f" {SSH} "], ids=["age", "ssh", "ssh with blanks"]
)
def test_public_keys_of_age_and_ssh(key: str) -> None:
    request = ExportRequest.parse(
        {"user_id": "u", "export_type": "ledger", "format": "csv", "encrypt": {"age": [key]}}
    )
    check_encryption(LEDGER, request.encrypt, has_passwords=False)


@each_row(
    "key",
    ["", "age1", "ssh-ed25519", "ssh-dss AAAA", "ssh-ed25519 AAAA x", "ü", "-----BEGIN", str(IDENTITY)],
)
def test_other_texts_are_refused_without_being_repeated(key: str) -> None:
    with pytest.raises(Rejected, match=r"^encrypt\.age\.1: .*allowed: age1") as caught:
        check_encryption(LEDGER, Encrypt(age=[SSH, key]), has_passwords=True)
    assert key == "ssh-ed25519" or len(key) < 6 or key not in str(caught.value)


@pytest.mark.parametrize(
    "encrypt",
    [{}, {"age": []}, {"age": [SSH], "zip_password": True}, {"zip_password": False}, {"age": [SSH] * 21}, 7],
)
def test_one_kind_of_encryption_is_chosen(encrypt: object) -> None:
    with pytest.raises(Rejected, match=r"^encrypt"):
        ExportRequest.parse({"user_id": "u", "export_type": "ledger", "format": "csv", "encrypt": encrypt})


def test_a_dataset_can_require_encryption() -> None:
    dataset = LEDGER.model_copy(update={"encrypt": "required"})
    with pytest.raises(Rejected, match="must be encrypted") as caught:
        check_encryption(dataset, None, has_passwords=True)
    assert caught.value.code == "encryption_required"
    check_encryption(dataset, Encrypt(zip_password=True), has_passwords=True)
    check_encryption(LEDGER, None, has_passwords=True)
