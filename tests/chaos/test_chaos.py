"""All parts have faults while jobs run: every job ends once, with a complete file and complete events.

``make chaos MINUTES=30`` runs this for longer and with more faults.
"""

import os
from random import randrange

import pytest

from dev.stack import Stack
from tests.chaos.items import Source
from tests.chaos.plan import plan
from tests.chaos.scenario import SETTINGS, Scenario
from tests.chaos.supervisor import Supervisor

pytestmark = pytest.mark.chaos

WORKERS = 3


async def test_every_job_ends_once(stack: Stack, source: Source, datasets: dict[str, str]) -> None:
    seed = int(os.environ.get("CHAOS_SEED") or randrange(2**32))
    print(f"CHAOS_SEED={seed}")
    wanted = plan(seed, jobs=45, seconds=14, rounds=1, workers=WORKERS, outage=4)
    with Supervisor(stack, WORKERS, SETTINGS | datasets) as workers:
        scenario = Scenario(stack, workers, source, wanted)
        try:
            await scenario.run()
        except AssertionError as error:
            raise AssertionError([str(error), *scenario.wrong]) from error
    print(scenario.figures)
    assert scenario.wrong == []
    assert scenario.figures.faults.keys() >= {"kill", "freeze", "rebalance", "kafka", "postgres", "s3"}
    assert scenario.figures.endings["completed"] > 30
