"""Results on standard output, a pipe or a device; dead letters in a file. Nothing to go on from."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from yelpaze.io.jsonl import result_line
from yelpaze.io.lines import Extent, LineFile, aside_name, line_of
from yelpaze.io.protocol import Checkpoint, DeadLetter


class StdoutSink:
    """JSON Lines for a pipe, which can't be cut back."""

    def __init__(self, failures: Path, out: Path | int) -> None:
        """`out`: a device, or the descriptor of standard output."""
        self.name = "-" if isinstance(out, int) else str(out)
        self._out = open(out, "wb", closefd=isinstance(out, Path))  # noqa: SIM115
        self._letters = LineFile(failures)
        self._lines: list[bytes] = []
        self._waiting = 0
        self.failures = str(failures)

    @property
    def waiting(self) -> int:
        return self._waiting + self._letters.waiting

    def checkpoint(self) -> Checkpoint | None:
        return None

    def damage(self) -> str | None:
        return None

    def resume(self) -> None:
        path = self._letters.path
        if path.exists() and path.stat().st_size:
            path.rename(aside_name(path))
        self._letters.cut(Extent())
        self._letters.close()

    def restart(self) -> list[str]:
        self.resume()
        return []

    def write(self, row: int, result: bytes, *, cursor: Any = None, trace_id: str = "") -> None:  # noqa: ARG002
        line = result_line(row, result)
        self._lines.append(line)
        self._waiting += len(line)

    def fail(self, letter: DeadLetter) -> None:
        self._letters.add(line_of(letter))

    def resolve(self, row: int) -> None:
        pass  # it gives no dead letters to run again, so none is ever resolved

    def dead_letters(self) -> Iterator[DeadLetter]:
        return iter(())

    def commit(
        self,
        checkpoint: Checkpoint,  # noqa: ARG002  a pipe keeps no checkpoint
        *,
        is_last: bool = True,  # noqa: ARG002
    ) -> Callable[[], None]:
        lines, self._lines = self._lines, []
        self._waiting = 0
        write_letters = self._letters.take()

        def work() -> None:
            self._out.write(b"".join(lines))
            self._out.flush()
            write_letters()

        return work

    def rejected(self) -> list[tuple[int, str]]:
        return []

    def tidy(self) -> None:
        pass

    def close(self) -> None:
        with contextlib.suppress(OSError):  # it has been told of by the flush before
            self._out.close()
        self._letters.close()
