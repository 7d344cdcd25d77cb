"""Free TCP ports on the loopback interface."""

import random
import socket

# Below the range from which kernels take the local ports of outgoing connections: a server
# that is stopped and started again must find its port still free.
_FIRST, _LAST = 20_000, 32_000
_random = random.SystemRandom()


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen on ``port`` now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: ignore TIME_WAIT
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def free_ports(count: int) -> list[int]:
    """``count`` different free ports. Another program may still take one first: be ready to retry."""
    found: set[int] = set()
    while len(found) < count:
        port = _random.randrange(_FIRST, _LAST)
        if port not in found and is_free(port):
            found.add(port)
    return sorted(found)


def is_open(port: int, host: str = "127.0.0.1") -> bool:
    """Whether something accepts connections on ``port``."""
    try:
        socket.create_connection((host, port), timeout=0.5).close()
    except OSError:
        return False
    return True
