"""Ends a command at SIGTERM from its first moment on."""

import signal
import sys
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

EXIT_CODE = 128 + signal.SIGTERM
"""The exit code of a shell for a program that SIGTERM ended."""

RETRY_SECONDS = 0.01
"""Seconds until the command exits again, where Python ignored the first exit."""


def exit_on_sigterm() -> None:
    """Exit at SIGTERM, until the command has a handler of its own.

    The kernel does not deliver a signal without a handler to the first process of a container.

    Python runs the handler between any two steps of the program. In a finalizer (``__del__``, the callback of
    a weak reference) it prints the exception of the exit and goes on, so the exit is repeated then.
    """
    signal.signal(signal.SIGTERM, _exit)
    signal.signal(signal.SIGALRM, _exit)
    sys.unraisablehook = _exit_again


def _exit(_signal: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(EXIT_CODE)


def _exit_again(ignored: "UnraisableHookArgs") -> None:
    """Repeat an exit that Python ignored; print every other ignored exception."""
    if issubclass(ignored.exc_type, SystemExit):
        signal.setitimer(signal.ITIMER_REAL, RETRY_SECONDS)
    else:
        sys.__unraisablehook__(ignored)
