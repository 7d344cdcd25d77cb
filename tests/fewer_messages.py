"""Lets the processes of pytest-xdist send what is counted or shown, and nothing else.

About each test that passes they would send six messages, two of which are needed, and format an output that
is not shown. That is an eighth of the processor time of the unit tests.
"""

from typing import Any

import pytest

MORE = ("durations", "record_durations", "xmlpath")
"""Options with whose output all reports are needed, as with ``--verbose``."""


def send_outcomes_only(config: pytest.Config) -> None:
    """Let this process of pytest-xdist send the reports of failures, and of calls that have passed."""
    if config.option.verbose > 0 or any(config.getoption(option, None) for option in MORE):
        return
    plugins = config.pluginmanager
    (sender,) = (plugin for plugin in plugins.get_plugins() if type(plugin).__name__ == "WorkerInteractor")
    plugins.unregister(sender)
    sender.__class__ = outcomes_only(type(sender))
    plugins.register(sender)


def outcomes_only(base: Any) -> Any:
    """Return a subclass of xdist's ``WorkerInteractor``, which no module has: xdist executes its text."""

    class OutcomesOnly(base):  # type: ignore[misc]
        @pytest.hookimpl
        def pytest_runtestloop(self, session: pytest.Session) -> object:
            """Run the tests, without a text for each."""
            plugins = session.config.pluginmanager
            name = "terminalreporter"
            if (reporter := plugins.unregister(name=name)) is not None:
                reporter.__class__ = _silent(type(reporter))
                plugins.register(reporter, name)
            return super().pytest_runtestloop(session)

        @pytest.hookimpl
        def pytest_runtest_logstart(self) -> None:
            """Send nothing: only the verbose output shows that a test begins."""

        @pytest.hookimpl
        def pytest_runtest_logfinish(self) -> None:
            """Send nothing."""

        @pytest.hookimpl
        def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
            """Send a report that is counted or has an output."""
            if report.when == "call" or not report.passed or report.sections:
                super().pytest_runtest_logreport(report)

    return OutcomesOnly


def _silent(base: Any) -> Any:
    class Silent(base):  # type: ignore[misc]
        def pytest_runtest_logstart(self) -> None:
            pass

        def pytest_runtest_logreport(self) -> None:
            pass

    return Silent
