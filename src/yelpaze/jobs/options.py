"""What a run is asked for, and what it says at its end."""

from typing import Any

import msgspec

from yelpaze.compute.workers import Workers
from yelpaze.io.backends import absolute, default_output


class RunOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What `yelpaze run` was asked for.

    - `inputs`: paths, globs, one URL, or `-`; `output`: a path, a URL or `-`; None is the default name.
    - `engine`: Engine options that win over those of the flow.
    - `restart`: begin anew; `accept`: which changes (`flow`, `input`, `output`) are all right.
    - `max_failures`: rows (`100`) or a share (`0.05`, a float); `grace`: seconds for rows under
      way when the run is stopped; `memory`: bytes of answers that rows under way may hold.
    - `stdout`: the descriptor that the output `-` means.
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
    engine: dict[str, Any] = {}


def elsewhere(options: RunOptions) -> RunOptions:
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
