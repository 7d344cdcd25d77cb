"""Removes the files that a larger set of another job has left at paths that jobs share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from stream_app.destinations.session import OutgoingFile, Session, answer_of
from stream_app.notifications.shared_paths import SetsAtPath

UNKNOWN_SURPLUS = "files with further numbers are there, and no known job has certainly sent them"

UNREADABLE_SURPLUS = (
    "files with further numbers are possibly there, and the destination does not let the service read them"
)


@dataclass(eq=False)
class SurplusRemoval:
    """The removal of the files with further numbers than those of a set.

    A file is removed if a job on record has certainly sent it to this place, or if it has the content of a
    file that a job has possibly sent. A job that was sent before the destination was changed was possibly
    sent to another machine, and other clients of this one can have files with the same names.

    Attributes:
        session: the open connection.
        sent: how many files the set has.
        further: returns where a file with a further number would be stored.
        sets: returns how many files the sets of other jobs have at the same paths.
        contents: returns the sizes and digests that their files with a number have.
        manifest: the path of the list of the files, which stays; ``None`` if there is none.
        check: checks that the transfer can go on.
        surplus: how many files of other jobs are possibly still there; 0 also if files are left that no
            known job has sent.
        error: why files were left; ``None`` if none was.
        is_complete: whether all were removed, so that later jobs need not look for them.
    """

    session: Session
    sent: int
    further: Callable[[int], Sequence[str]]
    sets: Callable[[], SetsAtPath]
    contents: Callable[[int], Sequence[tuple[int, str]]]
    manifest: str | None
    check: Callable[[], None]
    surplus: int = 0
    error: str | None = None
    is_complete: bool = False

    def run(self) -> None:
        """Remove the files, the last one first, until the destination refuses one.

        So they are found again if the removal is interrupted. To ask the destination first is fast, and few
        sets are smaller than the one before.

        Raises:
            DestinationError: the destination refuses a removal, or is away.
            TransferInterrupted: the transfer must end.
        """
        answers = [answer_of(partial(self.session.exists, path)) for path in self._paths(self.sent + 1)]
        if all(answer is False for answer in answers):
            return
        sets = self.sets()
        self.surplus = max(0, max(sets.sent, sets.largest) - self.sent)
        if not self.surplus and any(answers):
            # The record of the job was deleted, or the files were copied from another host, or are of others.
            self.error = UNKNOWN_SURPLUS
            return
        while self.surplus:
            number = self.sent + self.surplus
            for path in self._paths(number):
                self.check()
                if number <= sets.sent or self._is_of_known_job(path, number):
                    self.session.remove(path)
            self.surplus -= 1
        self.is_complete = self.error is None

    def _paths(self, number: int) -> list[str]:
        return [path for path in self.further(number) if path != self.manifest]

    def _is_of_known_job(self, path: str, number: int) -> bool:
        """Return whether a file has the content of a job's file with that number; note that it stays if not.

        Where one file cannot be read, the others are not asked for: sets can have thousands of them.
        """
        if self.error == UNREADABLE_SURPLUS or answer_of(partial(self.session.exists, path)) is False:
            return False
        for size, sha256 in self.contents(number):
            self.check()
            has = answer_of(partial(self.session.has, OutgoingFile(path, "", "", size, sha256)))
            if has:
                return True
            if has is None:
                self.error = UNREADABLE_SURPLUS
                return False
        self.error = UNKNOWN_SURPLUS
        return False
