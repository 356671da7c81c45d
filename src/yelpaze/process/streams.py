"""Standard streams that are closed, full or broken: what cannot be shown is lost, the work goes on."""

import contextlib
import os
import sys
from collections.abc import Iterable
from io import TextIOWrapper
from typing import Any, TextIO, cast

_STDIN, _STDOUT, _STDERR = range(3)


class _Display:
    """A text stream whose file may fail: from then on it writes to nowhere."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:
            self._give_up()
            return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            self._give_up()

    def _give_up(self) -> None:
        # What is left in the buffer goes there, too; or Python exits with status 120.
        with contextlib.suppress(OSError):
            _point_to_null(self._stream.fileno(), os.O_WRONLY)


def prepare() -> None:
    """Make the streams of a command safe: none missing, none that fails, none that refuses a file name."""
    _open_missing()
    as_displays("stderr")
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _open_missing() -> None:
    """Take the descriptors 0 to 2 where they are closed, before a file or socket gets their numbers.

    Reading standard input, or writing standard output, still fails then, as it should.
    """
    for number, mode in ((_STDIN, os.O_WRONLY), (_STDOUT, os.O_RDONLY), (_STDERR, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            _point_to_null(number, mode)
    if sys.stderr is None:
        sys.stderr = open(_STDERR, "w", closefd=False)  # noqa: SIM115  for as long as the process


def as_displays(*names: str) -> None:
    """Make `sys.stderr`, or `sys.stdout` where it is none but a display, ignore that its file fails."""
    for name in names:
        stream = getattr(sys, name)
        if not isinstance(stream, _Display) and _number_of(stream) in (_STDOUT, _STDERR):
            setattr(sys, name, cast(TextIO, _Display(stream)))


def results_on_stdout() -> TextIO:
    """Standard output for results alone: whatever else writes there, in C or in a child, goes to stderr.

    For the rest of the process, which may have exit handlers. If `sys.stdout` is not the process's own
    (in a test, a notebook), nothing is moved.
    """
    stdout = sys.stdout
    if _number_of(stdout) != _STDOUT:
        return stdout
    if stdout is not None:
        stdout.flush()
    own = os.dup(_STDOUT)
    os.dup2(_STDERR, _STDOUT)
    return open(own, "w", buffering=1, encoding="utf-8", errors="backslashreplace")  # noqa: PTH123


def _number_of(stream: TextIO | None) -> int:
    if stream is None:
        return _STDOUT
    try:
        return stream.fileno()
    except (OSError, ValueError, AttributeError):
        return -1


def _point_to_null(number: int, mode: int) -> None:
    null = os.open(os.devnull, mode)
    if null != number:
        os.dup2(null, number)
        os.close(null)
    os.set_inheritable(number, True)
