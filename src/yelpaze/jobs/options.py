"""What a run is asked for, and what it says at its end."""

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Any, TypedDict

import msgspec

from yelpaze.compute.workers import Who, Workers, who
from yelpaze.io.backends import absolute, default_output
from yelpaze.model.cores import usable_cores
from yelpaze.model.errors import MisuseError

_LEAST = {
    "concurrency": 1, "batch": 1, "limit": 0, "sample": 1, "row_retries": 0, "memory": 1, "grace": 0,
}  # fmt: skip
_PERCENT = 100
_POSITIVE = ("row_deadline", "commit_seconds")
_ACCEPTED = frozenset({"flow", "input", "output"})


class JobOptions(TypedDict, total=False):
    """The keywords of `Job`; see there."""

    concurrency: int
    workers: Who | None
    batch: int
    limit: int | None
    sample: int | None
    ordered: bool
    restart: bool
    accept: Collection[str]
    row_deadline: float | None
    row_retries: int
    max_failures: int | float | str | None
    grace: float
    memory: int
    commit_seconds: float
    engine: Mapping[str, Any]


class RunOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What `yelpaze run` was asked for.

    - `inputs`: paths, globs, one URL, or `-`; `output`: a path, a URL or `-`; None is the default name.
    - `engine`: Engine options that win over those of the flow.
    - `restart`: begin anew; `accept`: which changes (`flow`, `input`, `output`) are all right.
    - `max_failures`: rows (`100`) or a share (`0.05`, a float); `grace`: seconds for rows under
      way when the run is stopped; `memory`: bytes of answers that rows under way may hold.
    - `stdout`: the descriptor that the output `-` means; `folder`: where the run was started, if a flow may
      have left it.
    """

    inputs: tuple[str, ...]
    output: str | None = None
    concurrency: int = 256
    workers: int | Workers = 1
    batch: int = 64
    limit: int | None = None
    sample: int | None = None
    ordered: bool = False
    restart: bool = False
    accept: frozenset[str] = frozenset()
    row_deadline: float | None = None
    row_retries: int = 0
    max_failures: int | float | None = None
    grace: float = 10.0
    memory: int = 128 << 20
    commit_seconds: float = 1.0
    stdout: int = 1
    folder: str | None = None
    engine: Mapping[str, Any] = {}

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int | float) and value >= least):
                raise MisuseError(f"{name} takes a number of at least {least}: {value!r}")
        most = self.max_failures
        if most is not None and not (isinstance(most, int | float) and most >= 0):
            raise MisuseError(
                f"max_failures takes a number of rows, or a share such as 0.05 or '5%': {most!r}"
            )
        for name in _POSITIVE:
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int | float) and value > 0):
                raise MisuseError(f"{name} takes a positive number of seconds: {value!r}")
        if not self.accept <= _ACCEPTED:
            known = ", ".join(sorted(_ACCEPTED))
            raise MisuseError(f"accept takes some of {known}: {', '.join(sorted(self.accept))}")


def max_failures_of(text: str) -> int | float | str:
    """`100` as a number of rows, `5%` as a share; the text itself if it is neither."""
    try:
        if text.endswith("%") and 0 <= float(text[:-1]) <= _PERCENT:
            return float(text[:-1]) / _PERCENT
        if int(text) >= 0:
            return int(text)
    except ValueError:
        pass
    return text


def options_of(inputs: tuple[str, ...], output: str | None, given: JobOptions) -> RunOptions:
    """Options as they are given in Python. Raises MisuseError."""
    values: dict[str, Any] = dict(given)
    for name in values:
        if name not in JobOptions.__annotations__:
            near = get_close_matches(name, JobOptions.__annotations__, 1)
            raise MisuseError(f"there is no option {name!r}" + (f": did you mean {near[0]}?" if near else ""))
    accept = values.get("accept", ())
    values["accept"] = frozenset((accept,) if isinstance(accept, str) else accept)
    if isinstance(values.get("max_failures"), str):
        values["max_failures"] = max_failures_of(values["max_failures"])
    workers = values.pop("workers", None)
    values["workers"] = usable_cores() if workers is None else who(workers)
    return RunOptions(inputs=inputs, output=output, **values)


def with_absolute_names(options: RunOptions) -> RunOptions:
    """The same, with names of files that are right in any working folder."""
    output = options.output
    if output is None:
        output = default_output(options.inputs)
    return msgspec.structs.replace(
        options, inputs=tuple(map(absolute, options.inputs)), output=absolute(output)
    )


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """How a run went. `rows`, `succeeded`, `failed`: of the whole run; the rest: of this time.

    `ended`: the rows that it ran; `failures` are by kind, `reasons` by kind and status; `latency_ms` is that
    of attempts that were answered, from their start to the whole answer; `peak_rss_mb` of all processes,
    summed.
    """

    run: str
    rows: int
    succeeded: int
    failed: int
    ended: int
    requests: int
    retries: int
    seconds: float
    rows_per_second: float
    peak_rss_mb: float
    latency_ms: dict[str, float]
    failures: dict[str, int]
    reasons: dict[str, int]
    output: str
    failures_file: str | None
    interrupted: bool
    already_finished: bool = False
