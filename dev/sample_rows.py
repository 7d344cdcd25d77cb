"""Rows of the sample, as lines of PostgreSQL's text COPY. The same sizes give the same bytes."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from random import Random
from uuid import UUID

START = datetime(2025, 1, 1, tzinfo=UTC)
SPAN = timedelta(days=685)
"""The rows of every table are spread over this time."""

GENESIS = "0" * 64
"""The previous hash of the first ledger entry."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_START_US = (START - _EPOCH) // _MICROSECOND
_SPAN_US = SPAN // _MICROSECOND

# Texts that a faulty export would damage: quotes, separators, line ends, formulas, scripts, leading zeros.
LABELS = (
    "Sunset over the harbour",
    'The "old" mill, north side',
    "=SUM(A1:A9)",
    "Ζωγραφιά του λιμανιού",
    "夕暮れの港、二枚目",
    "Первая строка\nвторая строка",
    "+33 1 23 45 67 89",
    "صورة الميناء القديم",
    "-12.5 °C; wind, 40 km/h",
    "@home — kitchen table 🍋",
    "00042",
    "a\ttab and a back\\slash",
    "Ünïcödé, naïve café",
    "हिमालय की सुबह",
    "<b>not bold</b> & 'quoted'",
    "  padded  ",
)
_NOTES = [json.dumps(label, ensure_ascii=False) for label in LABELS]
_NOWHERE = "\\N\t\\N"
_DEVICES = (
    "Pixel 11",
    "iPhone 18 Pro",
    "Xperia 1 IX",
    'Scanner "B"',
    "=HYPERLINK(1)",
    "カメラ・二号",
    "Leica M12-P",
)
_PLATFORMS = ("android", "ios", "linux", "embedded")
_ALGORITHMS = ("ed25519", "ecdsa-p256", "rsa-3072")
_STATUSES = ("active", "active", "active", "pending", "suspended", "revoked")
_MEDIA = ("image/jpeg", "image/heic", "video/mp4", "audio/flac", "application/pdf")
_TAGS = ("press", "field", "night", "raw", "série, à trier", "日本", 'say "hi"')
_KINDS = ("enrollment", "proof", "proof", "proof", "transfer", "revocation")


def enrollments(count: int, users: int) -> Iterator[str]:
    """Yield one line for each device; its id is ``enrollment_id(number)``."""
    random = Random("enrollments")
    for number in range(count):
        created = _moment(number, count, random)
        status = random.choice(_STATUSES)
        attributes = {
            "firmware": f"{random.randrange(9)}.{random.randrange(99)}",
            "slot": random.randrange(4),
        }
        yield _line(
            str(enrollment_id(number)),
            _user(random, users),
            random.choice(_DEVICES),
            random.choice(_PLATFORMS),
            random.choice(_ALGORITHMS),
            f"key-{random.getrandbits(64):016x}",
            _bytea(random.randbytes(32)),
            status,
            "t" if random.random() < 0.8 else "f",
            _timestamp(created),
            _timestamp(created + random.randrange(86_400_000_000)) if status == "revoked" else None,
            json.dumps(attributes),
        )


def proofs(count: int, devices: int, users: int) -> Iterator[str]:
    """Yield one line for each captured asset."""
    random = Random("proofs")
    bits = random.getrandbits
    labels = [*(_escape(label) for label in LABELS), *(_escape(label) for label in LABELS[:14]), "\\N", "\\N"]
    comments = [_escape(note) for note in _NOTES]
    tags = [_escape(_array(_TAGS[first:last])) for first in range(7) for last in range(first, 7)]
    ids = [str(enrollment_id(number)) for number in range(devices)]
    for number in range(count):
        noise = bits(60)
        created = _moment(number, count, random)
        place = f"{bits(31) / 2**31 * 180 - 90:.6f}\t{bits(31) / 2**31 * 360 - 180:.6f}"
        yield (
            f"{_uuid(f'{bits(128):032x}')}\t{ids[noise % devices]}\tuser-{1 + (noise >> 20) % users}\t"
            f"{labels[noise >> 27 & 31]}\t{_MEDIA[(noise >> 32) % 5]}\t{1_000 + bits(33)}\t"
            f"{bits(256):064x}\t\\\\x{bits(512):0128x}\t"
            f"{_timestamp(created - bits(31))}\t{_timestamp(created)}\t"
            f"{place if noise >> 35 & 3 else _NOWHERE}\t{tags[(noise >> 37) % len(tags)]}\t"
            f'{{"camera": {{"iso": {100 << (noise >> 42 & 7)}, "exposure_s": 0.{noise >> 45 & 1023:04d}}}, '
            f'"edited": {"true" if noise >> 55 & 7 == 0 else "false"}, "comment": {comments[noise & 15]}}}\n'
        )


def ledger(count: int, users: int) -> Iterator[str]:
    """Yield one line for each entry; ``entry_hash`` is the sha256 of its fields and of the previous hash.

    This is the inner loop of a million rows, so it is written for speed.
    """
    random = Random("ledger")
    bits, sha256 = random.getrandbits, hashlib.sha256
    previous = GENESIS
    for number in range(1, count + 1):
        noise, name = bits(60), f"{bits(192):048x}"
        kind = _KINDS[noise % 6]
        user = f"user-{1 + (noise >> 8) % users}"
        subject = _uuid(name)
        created = ledger_moment(number, count)
        amount = f"{(noise >> 20) % 100_000}.{(noise >> 40) % 1_000_000:06d}"
        sealed = noise >> 59 & 1
        # In the order and spacing of jsonb's own text, so that the hash can be computed from the table.
        payload = (
            f'{{"v": 2, "ip": "10.{noise >> 3 & 255}.{noise >> 11 & 255}.{noise >> 19 & 255}", '
            f'"note": {_NOTES[noise >> 27 & 15]}, "asset": "{name[32:]}", '
            f'"region": "eu-{1 + (noise >> 7) % 4}", "confidence": 0.{1 + (noise >> 50) % 9}}}'
        )
        head = f"{previous}|{number}|{kind}|{user}|{subject}|{created}|{amount}|{sealed}|{payload}"
        entry = sha256(head.encode()).hexdigest()
        escaped = payload.replace("\\", "\\\\")
        yield (
            f"{number}\t{kind}\t{user}\t{subject}\t{_timestamp(created)}\t{amount}\t{sealed}\t{escaped}\t"
            f"{previous}\t{entry}\n"
        )
        previous = entry


def ledger_moment(number: int, count: int) -> int:
    """Return the time of the ledger's entry ``number``, which counts from 1, in microseconds since 1970."""
    return _START_US + (number * _SPAN_US) // (count + 1)


def enrollment_id(number: int) -> UUID:
    """Return the id of the device ``number``, which counts from 0."""
    return UUID(bytes=hashlib.sha256(b"enrollment %d" % number).digest()[:16], version=4)


def _moment(number: int, count: int, random: Random) -> int:
    step = _SPAN_US // count
    return _START_US + number * step + random.randrange(step)


def _timestamp(microseconds: int) -> str:
    """Format microseconds since 1970 as PostgreSQL reads them."""
    day, rest = divmod(microseconds, 86_400_000_000)
    seconds, fraction = divmod(rest, 1_000_000)
    minutes, second = divmod(seconds, 60)
    return f"{_date(day)} {minutes // 60:02d}:{minutes % 60:02d}:{second:02d}.{fraction:06d}+00"


@lru_cache(maxsize=1024)
def _date(day: int) -> str:
    return (_EPOCH + timedelta(days=day)).date().isoformat()


def _uuid(digits: str) -> str:
    """Return a version 4 UUID made of hexadecimal digits."""
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:32]}"


def _user(random: Random, users: int) -> str:
    return f"user-{1 + random.randrange(users)}"


def _bytea(value: bytes) -> str:
    return "\\x" + value.hex()


def _array(values: Sequence[str]) -> str:
    quoted = (value.replace("\\", "\\\\").replace('"', '\\"') for value in values)
    return "{" + ",".join(f'"{value}"' for value in quoted) + "}"


_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def _escape(value: str) -> str:
    return value.translate(_ESCAPES)


def _line(*values: str | None) -> str:
    return "\t".join("\\N" if value is None else _escape(value) for value in values) + "\n"
