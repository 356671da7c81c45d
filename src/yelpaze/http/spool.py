"""Where a streamed body goes: a file that is whole or absent, or a callable.

Only the body of a good answer is streamed; that of a redirect or an error status is
collected as usual, so that it never lands in the file.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

from yelpaze.http.transport import BodyWriter
from yelpaze.model.errors import ErrorKind
from yelpaze.model.outcome import Outcome

Destination = str | os.PathLike[str] | Callable[[bytes], object]
_FIRST_ERROR, _FIRST_REDIRECT = 400, 300
_MOST_COLLECTED = 64 * 1024 * 1024
# Linux: a file without a name until it is whole, so nothing is left behind by a crash.
_NAMELESS: int | None = getattr(os, "O_TMPFILE", None) if os.path.isdir("/proc/self/fd") else None


class Spool:
    """One call's body target over all its attempts.

    With `clobber=False` an existing file is never replaced: FileExistsError. With `with_head` the answer's
    header block comes before the body, with `keep_all` the body of a redirect or an error status is wanted
    as well, without `keep_empty` no empty body is. A callable that has a method `restart` can take back what
    it got, so that another attempt may be made.
    """

    __slots__ = (
        "_clobber",
        "_descriptor",
        "_keep_all",
        "_keep_empty",
        "_part",
        "_path",
        "_restart",
        "_with_head",
        "_write",
        "delivered",
        "error",
    )

    def __init__(
        self,
        target: Destination,
        *,
        clobber: bool = True,
        with_head: bool = False,
        keep_all: bool = False,
        keep_empty: bool = True,
    ) -> None:
        self._write: Callable[[bytes], object] | None = target if callable(target) else None
        self._restart: Callable[[], object] | None = getattr(target, "restart", None)
        self._path = "" if callable(target) else os.fspath(target)
        self._clobber = clobber
        self._with_head = with_head
        self._keep_all = keep_all
        self._keep_empty = keep_empty
        self._part = ""
        self._descriptor = -1
        self.delivered = 0
        self.error: BaseException | None = None

    @property
    def rewindable(self) -> bool:
        """Whether another attempt may start anew: most callables can't take back what they got."""
        return self._write is None or self.delivered == 0 or self._restart is not None

    def writer(self) -> BodyWriter:
        """Return the writer for the body of the next attempt."""
        self._drop_part()
        if self.delivered and self._restart is not None:
            self._restart()
        self.delivered = collected = 0
        good: bool | None = None
        # An error's body may be as large as any; where it can be taken back it is streamed, too.
        takes_all = self._keep_all and (self._write is None or self._restart is not None)

        def write(head: bytearray, data: bytes) -> bool:
            nonlocal good, collected
            if good is None:
                good = takes_all or _is_good(head)
                if good and self._with_head:
                    self._deliver(last_block(head))
            if good:
                self.delivered += len(data)
                self._deliver(data)
                return True
            collected += len(data)
            if collected > _MOST_COLLECTED:
                raise OSError(errno.EFBIG, "the body of an error answer is larger than 64 MiB")
            return False

        return write

    def finish(self, outcome: Outcome | None) -> None:
        """The call is over: put the file in place, or leave nothing (None: it was cancelled)."""
        if outcome is None or not self._wants(outcome):
            self._drop_part()
            return
        if not self.delivered:
            if self._with_head:
                self._deliver(last_block(outcome.headers.raw))
            if outcome.body:
                self.delivered += len(outcome.body)
                self._deliver(outcome.body)
        if self._write is not None:
            return
        self._opened()
        self._put_in_place()
        os.close(self._descriptor)
        self._descriptor = -1

    def _wants(self, outcome: Outcome) -> bool:
        error = outcome.error
        if not (self._keep_empty or self.delivered or outcome.body):
            return False
        if error is None and outcome.status < _FIRST_REDIRECT:
            return True
        # What a policy ended is a failure, not an answer, even if there was one before.
        return self._keep_all and outcome.status > 0 and (error is None or error.kind is ErrorKind.STATUS)

    def _put_in_place(self) -> None:
        """Give the file its name; one that nobody has seen until now, where the system can."""
        if not self._part:
            try:
                self._link(self._path)
            except FileExistsError:
                if not self._clobber:
                    raise
            else:
                return
            self._part = self._part_name()
            self._link(self._part)
        elif not self._clobber:
            try:
                os.link(self._part, self._path)
            except FileExistsError:
                raise
            except OSError:  # a file system without hard links: almost as good
                if os.path.lexists(self._path):
                    raise FileExistsError(errno.EEXIST, "File exists", self._path) from None
            else:
                os.unlink(self._part)
                self._part = ""
                return
        self._replace()

    def _replace(self) -> None:
        """Take the place of an old file, or of the one that a link leads to; of nothing else."""
        path = os.path.realpath(self._path)
        try:
            mode = os.stat(path).st_mode
        except FileNotFoundError:
            mode = None
        if mode is not None:
            if not stat.S_ISREG(mode):
                raise OSError(errno.EINVAL, "is there, and no file", self._path)
            os.chmod(self._part, stat.S_IMODE(mode))
        os.replace(self._part, path)
        self._part = ""

    def _link(self, path: str) -> None:
        # With a directory's descriptor Python calls linkat, which follows the link (open(2), O_TMPFILE).
        descriptor = self._descriptor
        os.link(f"/proc/self/fd/{descriptor}", path, src_dir_fd=descriptor, follow_symlinks=True)

    def _deliver(self, data: bytes) -> None:
        if self._write is not None:
            self._write(data)
            return
        descriptor = self._opened()
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]

    def _opened(self) -> int:
        if self._descriptor < 0:
            folder = os.path.dirname(self._path) or "."
            if _NAMELESS is not None:
                with contextlib.suppress(OSError):  # not on this file system
                    self._descriptor = os.open(folder, os.O_WRONLY | _NAMELESS | os.O_CLOEXEC, 0o666)
            if self._descriptor < 0:
                self._part = self._part_name()
                self._descriptor = os.open(
                    self._part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666
                )
        return self._descriptor

    def _part_name(self) -> str:
        folder, name = os.path.split(self._path)
        return os.path.join(folder, f".{name[:200]}.{os.getpid()}-{id(self):x}.part")

    def _drop_part(self) -> None:
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = -1
        if self._part:
            Path(self._part).unlink(missing_ok=True)
            self._part = ""


def last_block(head: bytearray | bytes) -> bytes:
    """The header block of the last answer: interim ones come before it."""
    return bytes(head[head.rfind(b"\nHTTP/") + 1 :])


def _is_good(head: bytearray) -> bool:
    line = last_block(head).split(b"\r\n", 1)[0]
    parts = line.split(b" ", 2)
    status = int(parts[1]) if len(parts) > 1 and parts[1].isdigit() else 0
    return not status >= _FIRST_REDIRECT and status < _FIRST_ERROR
