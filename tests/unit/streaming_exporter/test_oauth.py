"""A process that was forked after the first token fetches tokens, too."""

import subprocess
import sys

from tests.waiting import patient

FORKED = """
import asyncio, os, signal, sys
from streaming_exporter import oauth
from streaming_exporter.kafka_settings import KafkaSettings

provider = oauth.OAuthTokenProvider(KafkaSettings())
provider._fetch = lambda: {"access_token": str(os.getpid()), "expires_in": 0}
assert asyncio.run(provider.token()) == str(os.getpid())
provider._lock.acquire()  # as a thread that fetches a token at the time of the fork
child = os.fork()
if child == 0:
    signal.alarm(10)
    token = asyncio.run(provider.token())
    os._exit(0 if token == str(os.getpid()) else 1)
provider._lock.release()
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_child_that_was_forked_after_a_token_was_fetched_gets_tokens() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKED],
        check=False, capture_output=True, text=True, timeout=patient(60),
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
