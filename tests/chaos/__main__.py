"""``make chaos MINUTES=30``: runs scenarios with increasing seeds until the time is up; prints figures."""

import asyncio
import logging
import os
import sys
import tempfile
import time
from pathlib import Path
from random import randrange

from dev.postgres import SOURCE
from dev.stack import ROOT, Stack
from tests.chaos.conftest import prepare
from tests.chaos.items import Source
from tests.chaos.plan import plan
from tests.chaos.scenario import SETTINGS, Figures, Scenario
from tests.chaos.supervisor import Supervisor

WORKERS = 3


def main(minutes: float, seed: int) -> int:
    """Run scenarios until the time is up; return 1 after the first that fails. The logs stay."""
    logging.getLogger("aiokafka").setLevel(
        logging.CRITICAL
    )  # warnings of unavailable brokers are expected here
    until = time.monotonic() + 60 * minutes
    runs = ROOT / ".local"
    runs.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="chaos-", dir=runs))
    total = Figures()
    with Stack(folder, ledger_rows=None) as stack:
        settings = SETTINGS | prepare(stack)
        source = Source(stack.postgres.admin_url(SOURCE))
        with Supervisor(stack, WORKERS, settings) as workers:
            while time.monotonic() < until:
                wanted = plan(seed, jobs=300, seconds=90, rounds=2, workers=WORKERS)
                print(f"CHAOS_SEED={seed}", flush=True)
                scenario = Scenario(stack, workers, source, wanted)
                try:
                    asyncio.run(scenario.run())
                except AssertionError as error:
                    scenario.wrong.append(str(error))
                print(scenario.figures, flush=True)
                total.add(scenario.figures)
                if scenario.wrong:
                    print(*scenario.wrong, f"logs: {folder / 'logs'}", sep="\n", flush=True)
                    return 1
                seed += 1
    print(f"total: {total}")
    return 0


if __name__ == "__main__":
    first = int(os.environ.get("CHAOS_SEED") or randrange(2**32))
    sys.exit(main(float(sys.argv[1]), first))
