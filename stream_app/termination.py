"""Ends a command at SIGTERM from its first moment on."""

import signal
import sys

EXIT_CODE = 128 + signal.SIGTERM
"""The exit code of a shell for a program that SIGTERM ended."""


def exit_on_sigterm() -> None:
    """Exit at SIGTERM, until the command has a handler of its own.

    The kernel does not deliver a signal without a handler to the first process of a container.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_CODE))
