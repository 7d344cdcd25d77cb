"""What goes wrong while services start."""


class ServiceError(Exception):
    """A service failed. The message names it and says why, with the end of its log where it has one."""


class UsageError(Exception):
    """The caller can put it right: a port is taken, a program is missing. The message says how."""
