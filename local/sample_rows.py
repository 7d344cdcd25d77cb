"""Rows of the sample, as lines of PostgreSQL's text COPY. Deterministic: the same sizes, the same bytes."""

import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from random import Random
from uuid import UUID

START = datetime(2025, 1, 1, tzinfo=UTC)
SPAN = timedelta(days=685)
"""Every table spreads over this time, whatever its size."""

GENESIS = "0" * 64
"""What the first ledger entry holds in place of an earlier hash."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_START_US = (START - _EPOCH) // _MICROSECOND
_SPAN_US = SPAN // _MICROSECOND

# Text that careless exports spoil: quotes, separators, line ends, formulas, many scripts, leading zeros.
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
    """One line a device; its id is ``enrollment_id(number)``."""
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
    """One line a captured asset."""
    random = Random("proofs")
    for number in range(count):
        created = _moment(number, count, random)
        located = random.random() < 0.7
        tags = random.sample(_TAGS, random.randrange(4))
        metadata = {
            "camera": {"iso": random.choice((100, 200, 800, 3200)), "exposure_s": round(random.random(), 4)},
            "edited": random.random() < 0.1,
            "comment": random.choice(LABELS),
        }
        yield _line(
            str(UUID(int=random.getrandbits(128), version=4)),
            str(enrollment_id(random.randrange(devices))),
            _user(random, users),
            None if random.random() < 0.05 else random.choice(LABELS),
            random.choice(_MEDIA),
            str(random.randrange(1_000, 8_000_000_000)),
            random.randbytes(32).hex(),
            _bytea(random.randbytes(64)),
            _timestamp(created - random.randrange(1, 3_600_000_000)),
            _timestamp(created),
            f"{random.uniform(-90, 90):.6f}" if located else None,
            f"{random.uniform(-180, 180):.6f}" if located else None,
            "{" + ",".join('"' + tag.replace('"', '\\"') + '"' for tag in tags) + "}",
            json.dumps(metadata, ensure_ascii=False),
        )


def ledger(count: int, users: int) -> Iterator[str]:
    """One line an entry: ``entry_hash`` is the sha256 of all its fields and the hash of the entry before.

    The inner loop of a million rows, so it is plain rather than pretty.
    """
    random = Random("ledger")
    bits, sha256 = random.getrandbits, hashlib.sha256
    notes = [json.dumps(label, ensure_ascii=False) for label in LABELS]
    previous = GENESIS
    for number in range(1, count + 1):
        noise = bits(128)
        kind = _KINDS[noise % 6]
        user = f"user-{1 + (noise >> 8) % users}"
        subject = f"{noise >> 96:08x}-{noise >> 80 & 0xFFFF:04x}-4{noise >> 64 & 0xFFF:03x}-8{bits(60):015x}"
        subject = f"{subject[:23]}-{subject[23:]}"
        created = _START_US + (number * _SPAN_US) // (count + 1)
        amount = f"{(noise >> 20) % 100_000}.{(noise >> 40) % 1_000_000:06d}"
        sealed = noise >> 63 & 1
        # In the order and spacing of jsonb's own text, so that the hash can be computed from the table.
        payload = (
            f'{{"v": 2, "ip": "10.{noise >> 3 & 255}.{noise >> 11 & 255}.{noise >> 19 & 255}", '
            f'"note": {notes[noise >> 27 & 15]}, "asset": "{noise >> 30 & 0xFFFFFFFFFFFFFFFF:016x}", '
            f'"region": "eu-{1 + (noise >> 7) % 4}", "confidence": 0.{1 + (noise >> 50) % 9}}}'
        )
        head = f"{previous}|{number}|{kind}|{user}|{subject}|{created}|{amount}|{sealed}|{payload}"
        entry = sha256(head.encode()).hexdigest()
        yield (
            f"{number}\t{kind}\t{user}\t{subject}\t{_timestamp(created)}\t{amount}\t{sealed}\t"
            + payload.replace("\\", "\\\\")
            + f"\t{previous}\t{entry}\n"
        )
        previous = entry


def enrollment_id(number: int) -> UUID:
    """The id of the device with this number, from 0."""
    return UUID(bytes=hashlib.sha256(b"enrollment %d" % number).digest()[:16], version=4)


def _moment(number: int, count: int, random: Random) -> int:
    step = _SPAN_US // count
    return _START_US + number * step + random.randrange(step)


def _timestamp(microseconds: int) -> str:
    """Microseconds since 1970 as PostgreSQL reads them."""
    return (_EPOCH + timedelta(microseconds=microseconds)).isoformat()


def _user(random: Random, users: int) -> str:
    return f"user-{1 + random.randrange(users)}"


def _bytea(value: bytes) -> str:
    return "\\x" + value.hex()


_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def _line(*values: str | None) -> str:
    return "\t".join("\\N" if value is None else value.translate(_ESCAPES) for value in values) + "\n"
