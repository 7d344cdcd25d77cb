"""Starts one program that dies with its parent. Run as a script, standard library only.

``launch.py PARENT_PID DEATH_SIGNAL USER PROGRAM [ARGUMENT…]``

It is a separate program, because a ``preexec_fn`` would run Python between fork and exec in a process with
threads. USER is ``-`` or the account to change to. The death signal is set after that change, because
the kernel clears it when credentials change.
"""

import ctypes
import os
import pwd
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, death_signal, user, *argv = sys.argv[1:]
    if user != "-":
        account = pwd.getpwnam(user)
        os.setgroups([])
        os.setgid(account.pw_gid)
        os.setuid(account.pw_uid)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(death_signal))
    if os.getppid() != int(parent):  # the parent died before the signal was set
        sys.exit(1)
    os.execvp(argv[0], argv)  # noqa: S606 - the program needs no shell


if __name__ == "__main__":
    main()
