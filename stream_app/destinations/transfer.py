"""Sends the files of one job to a destination, one after the other. It blocks, so it belongs in a thread."""

import asyncio
import hashlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from threading import Event

from stream_app.datasets.destinations import Destination
from stream_app.destinations.errors import AWAY, IN_USE, NOT_PERMITTED, DestinationError, FileUnavailable
from stream_app.destinations.placement import whole_path
from stream_app.destinations.progress import DeliveryProgress
from stream_app.destinations.session import OutgoingFile, Session, SessionOptions, answer_of, open_session
from stream_app.destinations.surplus import SurplusRemoval
from stream_app.exports.task import ExportedFile
from stream_app.notifications.shared_paths import SetsAtPath
from stream_app.settings import Settings
from stream_app.storage.object_store import ObjectStore
from streaming_exporter.errors import Rejected, Retryable

CHUNK = 2**20
"""Bytes that are read from the object store and written to the destination at a time."""

BUSY_WAITS = 10
"""Attempts of a delivery that wait until others close old files: about half an hour, more after an outage."""

POSSIBLY_BUSY_WAITS = 4
"""Attempts that wait if the destination does not say why it refuses a removal: about a minute."""

UNREADABLE = "the file cannot be read from the object store at the moment"


@dataclass(eq=False)
class Transfer:
    """The transfer of the files of one job.

    Attributes:
        job_id: the id of the job.
        done: files that are complete at the destination.
        sent: bytes of these files, and of the file that is being sent.
        most: how many files possibly were complete there, also before a removal that was not completed.
        is_begun: whether an attempt has begun to write at the place. :meth:`discard` removes nothing else,
            unless it finds files there that were sent with other settings.
        is_untouched: whether the attempt has certainly written nothing.
        earlier: how many files an attempt has sent to the same path before the destination was changed.
        is_same_place: whether one of them was found, so that the place is the same, or has a copy; ``None``
            if they were not looked for.
        record_look: called after they were looked for, before anything is written or removed.
        record: called after each complete file, and after an upload has begun that must be recorded.
        begin_manifest: called before the manifest is written at a path that other jobs have too, with whether
            the destination has said that no file is there. It returns whether to write it, because that of a
            newer job must stay; ``None`` if that depends on whether a file is there.
        further: returns where a file with a further number would be stored.
        other_sets: returns how many files the sets of other jobs have at the same paths.
        other_contents: returns the sizes and digests that their files with a number have.
        surplus: how many files of a larger set of another job are possibly still there; 0 also if there are
            some, and no known job has sent them.
        surplus_error: why they could not be removed; ``None`` if they could.
        waits: how many attempts have waited until others close these files.
        alone: whether all files of larger sets were removed, so that later jobs need not look for them.
        upload: the unfinished upload of a file, where other jobs have the same path.
        others_wrote: whether other jobs possibly have written to the paths since the delivery was planned.
        kept: how many files, from the first on, :meth:`discard` leaves at paths that other jobs have too,
            because another delivery was sent there. Its content can be equal, so a comparison cannot tell.
        doubtful: how many files, from the first on, another delivery has sent to these paths before the
            destination was changed. :meth:`discard` leaves those with the content of this job, because they
            are possibly of that delivery, and counts them as left.
        keeps_manifest: whether :meth:`discard` leaves the manifest, because another job writes one there.
        manifest_begun: the path of the manifest, once it is begun at a path that other jobs have too.
        recording: held in the event loop while progress is recorded, so that no older progress, which waits
            for the database, replaces newer one.
        removed: how many of the ``most`` files :meth:`discard` has removed.
        held_until: the time of ``time.monotonic()`` from which another worker can have the delivery. A worker
            that was frozen must not replace the files of that worker.
    """

    job_id: str
    destination: Destination
    settings: Settings
    storage: ObjectStore
    files: Sequence[ExportedFile]
    outgoing: Sequence[OutgoingFile]
    manifest: tuple[OutgoingFile, bytes] | None
    tag: str
    attempt: int
    done: int
    record: Callable[[], None] = lambda: None
    record_look: Callable[[], None] = lambda: None
    begin_manifest: Callable[[bool], bool | None] = lambda _: True
    further: Callable[[int], Sequence[str]] = lambda _: ()
    other_sets: Callable[[], SetsAtPath] = lambda: SetsAtPath(0, 0)
    other_contents: Callable[[int], Sequence[tuple[int, str]]] = lambda _: ()
    surplus: int = 0
    surplus_error: str | None = None
    waits: int = 0
    alone: bool = False
    most: int = 0
    is_begun: bool = True
    is_untouched: bool = False
    earlier: int = 0
    is_same_place: bool | None = None
    upload: str | None = None
    sent: int = 0
    others_wrote: bool = True
    kept: float = 0
    doubtful: int = 0
    keeps_manifest: bool = False
    manifest_begun: str | None = None
    removed: int = 0
    stopped: Event = field(default_factory=Event)
    held_until: float = math.inf
    recording: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        self.most = max(self.most, self.done)

    def run(self) -> None:
        """Send the files that are not complete, and the manifest last.

        Raises:
            DestinationError: the destination failed.
            FileUnavailable: a file cannot be read, or is not what the job wrote.
            TransferInterrupted: it was stopped.
        """
        self._count_sent()
        options = self._options()
        self.is_untouched = True
        try:
            self._send(options)
        except DestinationError as error:
            self.is_untouched = self.is_untouched or (not self.done and error.is_refusal)
            raise

    def _send(self, options: SessionOptions) -> None:
        with open_session(self.destination, self.settings, options) as session:
            if self._look(session, options):
                self.record_look()
            self.done = self._still_there(session, options)
            self._count_sent()
            if self.done:  # its old file, if the attempt that has sent it died before it could remove that
                self._remove_leftovers(session, self.outgoing[self.done - 1])
            pairs = zip(self.files[self.done :], self.outgoing[self.done :], strict=True)
            for file, outgoing in pairs:
                options.check()
                self._remove_leftovers(session, outgoing)
                before = self.sent
                self.is_untouched = False
                if not session.copy(outgoing, self.storage.bucket, file.key):
                    session.put(outgoing, self._content(file, options))
                self.sent = before + outgoing.size
                self.done += 1
                self.most = max(self.most, self.done)
                self.upload = None
                self.record()
            self._remove_surplus(session, options)
            if self.manifest is not None:
                options.check()
                outgoing, content = self.manifest
                if not self.shares_manifest or self._begins_manifest(session, outgoing.path):
                    self._remove_leftovers(session, outgoing)
                    self.is_untouched = False
                    session.put(outgoing, iter([content]))

    def _begins_manifest(self, session: Session, path: str) -> bool:
        """Record that the manifest is written next; return whether to write it."""
        begins = self.begin_manifest(False)
        if begins is None:
            begins = answer_of(partial(session.exists, path)) is False and self.begin_manifest(True)
        return bool(begins)

    def is_path_free(self) -> bool:
        """Return whether the destination has certainly no file of another job at the path of the first file.

        Raises:
            DestinationError: the destination is away, or refuses the service.
        """
        first = self.outgoing[0]
        with open_session(self.destination, self.settings, self._options()) as session:
            if answer_of(partial(session.exists, first.path)) is False:
                return True
            return self.is_begun and answer_of(partial(session.has, first)) is True

    def _remove_surplus(self, session: Session, options: SessionOptions) -> None:
        """Remove the files that a larger set of another job has at shared paths, as far as that is possible.

        All files of this job are at the destination, so what refuses a removal does not concern them. A
        receiver that reads an old file closes it soon; a lock that stays must not hold up the set.

        Raises:
            DestinationError: the destination is away, or another client possibly has locked a file.
            TransferInterrupted: it was stopped.
        """
        if not self.shares_paths:
            return
        removal = SurplusRemoval(
            session,
            sent=len(self.outgoing),
            further=self.further,
            sets=self.other_sets,
            contents=self.other_contents,
            manifest=None if self.manifest is None else self.manifest[0].path,
            check=options.check,
        )
        try:
            removal.run()
            self.surplus_error = removal.error
        except DestinationError as error:
            if str(error) == AWAY:
                raise
            waits = BUSY_WAITS if error.is_busy else POSSIBLY_BUSY_WAITS if error.is_possibly_busy else 0
            if self.waits < waits:
                self.waits += 1
                self.record()
                raise DestinationError(
                    IN_USE, detail=error.detail, affects_all=False, is_busy=True
                ) from error
            self.surplus_error = error.detail
        self.surplus = removal.surplus
        if removal.is_complete:
            self.alone = True
            self.record()

    @property
    def path(self) -> str:
        """Where the first file is stored, with the prefix of the destination."""
        return whole_path(self.destination, self.outgoing[0].path)

    @property
    def manifest_path(self) -> str | None:
        """Where the manifest is stored, with the prefix of the destination; ``None`` if there is none."""
        return None if self.manifest is None else whole_path(self.destination, self.manifest[0].path)

    def noted(self, progress: DeliveryProgress) -> DeliveryProgress:
        """Return the progress with what the transfer has done."""
        return replace(
            self.settled(progress),
            files=self.done,
            sent_files=self.most,
            sent=self.sent,
            upload=self.upload,
            waits=self.waits,
            manifest=self.manifest_begun,
            alone=self.alone,
        )

    def settled(self, progress: DeliveryProgress) -> DeliveryProgress:
        """Return the progress with what is known of earlier places."""
        return progress if self.is_same_place is None else progress.looked(self.path, self.is_same_place)

    def _look(self, session: Session, options: SessionOptions) -> bool:
        """Look once whether files that were sent with other settings are here. Return whether it has looked.

        Another name of the host, or another user, can mean the same place or another one. At a path that
        other jobs have too, equal content is no proof.

        Raises:
            DestinationError: the destination is away.
            TransferInterrupted: it was stopped.
        """
        if not self.earlier or self.is_same_place is not None:
            return False
        found = False
        for file in self.outgoing[: self.earlier]:
            options.check()
            found = found or (self._is_own(file.path) and answer_of(partial(session.has, file)) is True)
        self.is_same_place = found
        if found:
            self.most = max(self.most, self.earlier)
        return True

    @property
    def can_find_earlier(self) -> bool:
        """Whether a look can find files that were sent with other settings."""
        return self.earlier > 0 and self.is_same_place is None and not self.shares_paths

    def _count_sent(self) -> None:
        self.sent = sum(file.size for file in self.outgoing[: self.done])

    @property
    def shares_paths(self) -> bool:
        """Whether other jobs can have the same paths: they do not have the id of the job."""
        return any(not self._is_own(file.path) for file in self.outgoing)

    @property
    def shares_manifest(self) -> bool:
        """Whether other jobs can have the path of the manifest."""
        return self.manifest is not None and not self._is_own(self.manifest[0].path)

    def _is_own(self, path: str) -> bool:
        return self.job_id in path

    def _still_there(self, session: Session, options: SessionOptions) -> int:
        """Return how many of the complete files are still those of this job.

        Where jobs share paths, another job can have replaced them since an earlier attempt has sent them.
        """
        if not self.others_wrote:
            return self.done  # to read large files again takes long
        for number, file in enumerate(self.outgoing[: self.done]):
            options.check()
            if not self._is_ours(session, file):
                return number
        return self.done

    def discard(self) -> None:
        """Remove what was sent, because the rest cannot be sent any more. The manifest is removed first.

        An attempt can end after a file got its name and before that was recorded, so all files are looked at.
        Where jobs share paths, those stay that another job has written, or that the service cannot read, and
        the first :attr:`kept` and :attr:`doubtful`.

        Raises:
            DestinationError: the destination failed, or files were left that are possibly of this job.
            TransferInterrupted: another worker can have the delivery.
        """
        files = [*self.outgoing, *([self.manifest[0]] if self.manifest is not None else [])]
        options, unreadable, doubtful = self._options(), 0, 0
        with open_session(self.destination, self.settings, options) as session:
            if self._look(session, options):
                self.record_look()  # the next attempt would not find what is removed now
            if not self.is_begun and not self.is_same_place:
                return
            for number, file in reversed(list(enumerate(files))):
                options.check()
                self._remove_leftovers(session, file)
                keeps = self.keeps_manifest if number == len(self.outgoing) else number < self.kept
                is_kept = keeps and not self._is_own(file.path)
                is_ours = False if is_kept else self._is_ours(session, file)
                is_doubtful = number < min(self.doubtful, len(self.outgoing)) and not self._is_own(file.path)
                if is_ours is None:
                    unreadable += 1
                    continue
                if is_ours and is_doubtful:
                    doubtful += 1
                    continue
                if is_ours:
                    options.check()  # to compare the content can take long
                    session.remove(file.path)
                if number < self.most:
                    self.removed += 1
        reasons = (
            (unreadable, "paths cannot be read, so their files"),
            (doubtful, "files can be of others, so they"),
        )
        if detail := "; ".join(f"{count} {why} were not removed" for count, why in reasons if count):
            raise DestinationError(NOT_PERMITTED, detail=detail)

    @property
    def left(self) -> int:
        """How many complete files are possibly at the destination."""
        return self.most - self.removed

    def _is_ours(self, session: Session, file: OutgoingFile) -> bool | None:
        """Return whether a file, if it is there, is one of this job; ``None`` if it is not readable."""
        return self._is_own(file.path) or session.has(file)

    def _options(self) -> SessionOptions:
        uploads = () if self.upload is None else (self.upload,)
        return SessionOptions(
            self.tag,
            self.attempt,
            self._must_end,
            uploads,
            self._is_own,
            self._upload_began,
            is_single=len(self.outgoing) == 1 and self.manifest is None,
        )

    def _upload_began(self, upload: str) -> None:
        self.upload = upload
        self.record()

    def _must_end(self) -> bool:
        return self.stopped.is_set() or time.monotonic() > self.held_until

    def _remove_leftovers(self, session: Session, file: OutgoingFile) -> None:
        """Remove what earlier attempts have left of a file, whatever they have recorded."""
        if self.attempt > 1:
            session.remove_leftovers(file.path)

    def _content(self, file: ExportedFile, options: SessionOptions) -> Iterator[bytes]:
        """Yield the content of a file. Its end is reached only if it is what the job wrote."""
        digest, size = hashlib.sha256(), 0
        try:
            for chunk in self.storage.chunks(file.key, CHUNK):
                options.check()
                digest.update(chunk)
                size += len(chunk)
                self.sent += len(chunk)
                yield chunk
        except (Rejected, Retryable) as error:
            lost = error.code == "no_file"  # a store that refuses to read has not lost the file
            text = "the file does not exist any more" if lost else UNREADABLE
            raise FileUnavailable(text, detail=str(error), lost=lost) from error
        if (size, digest.hexdigest()) != (file.file_size, file.sha256):
            detail = f"{file.key} has {size} bytes with sha256 {digest.hexdigest()}, not those of the record"
            raise FileUnavailable("the file is not complete in the object store", detail=detail, lost=False)
