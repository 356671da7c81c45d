"""Where a run starts: at the beginning, or at the checkpoint of its output."""

from collections.abc import Callable
from typing import Any

from yelpaze.io.protocol import Checkpoint, Sink
from yelpaze.jobs.identity import changes
from yelpaze.jobs.options import RunOptions
from yelpaze.model.errors import InputError


def resume(
    sink: Sink, identity: dict[str, Any], options: RunOptions, note: Callable[[str], None]
) -> tuple[Checkpoint | None, bool]:
    """Lock the output and make it ready. Returns its checkpoint (None: a new run) and whether rows are left.

    `identity` is what the run is recognised by now. Raises InputError if another run uses the output, or if
    something has changed that `options` do not accept.
    """
    try:
        checkpoint = sink.checkpoint()
        if options.restart:
            for kept in sink.restart():
                note(f"the earlier output is kept as {kept}")
            return None, True
        if checkpoint is None:
            if damage := sink.damage():
                raise InputError(f"{damage}; --restart begins anew and keeps it beside")
            sink.resume()
            return None, True
        accepted = _accepted(sink, checkpoint, identity, options, note)
        sink.resume()
    except OSError as error:
        raise InputError(f"{sink.name}: cannot be written: {error.strerror or error}") from None
    is_raised = checkpoint.limit is not None and (options.limit is None or options.limit > checkpoint.limit)
    return checkpoint, "input" in accepted or is_raised or not checkpoint.is_finished


def _accepted(
    sink: Sink,
    checkpoint: Checkpoint,
    identity: dict[str, Any],
    options: RunOptions,
    note: Callable[[str], None],
) -> frozenset[str]:
    """What has changed, all of it accepted. Raises InputError for what is not."""
    found = changes(checkpoint.identity, identity)
    if (damage := sink.damage()) is not None:
        found["output"] = damage
    accepted = options.accept & found.keys()
    if "input" in accepted:
        done = f"{checkpoint.acks.through:,}"
        note(f"the input is another one, and its rows up to number {done} count as done")
    if "output" in accepted:
        note("what the output has lost is not run again: --restart runs all rows")
    for name in accepted:
        del found[name]
    if found:
        flags = " ".join(f"--accept-changed {name}" for name in found if name != "sample")
        raise InputError(
            f"{sink.name}: holds {checkpoint.succeeded + checkpoint.failed:,} rows of the run "
            f"{checkpoint.run}, but since then {'; '.join(found.values())}. "
            + (f"{flags} goes on all the same; " if "sample" not in found else "")
            + "--restart begins anew and keeps the old output; -o gives another one"
        )
    return accepted
