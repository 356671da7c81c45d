"""Where a run begins: anew, or where its output says that it stands."""

from collections.abc import Callable
from typing import Any

from yelpaze.app.identity import changes
from yelpaze.app.options import RunOptions
from yelpaze.io.protocol import Sink, Standing
from yelpaze.model.errors import InputError


def begin(
    sink: Sink, identity: dict[str, Any], options: RunOptions, note: Callable[[str], None]
) -> tuple[Standing | None, bool]:
    """Lock the output and make it ready; how the run stands, None if it is new, and whether rows are left.

    `identity` is what the run would be recognised by now. Raises InputError: another run has the
    output, or something has changed that `options` do not accept.
    """
    try:
        standing = sink.standing()
        if options.restart:
            for kept in sink.restart():
                note(f"the earlier output is kept as {kept}")
            return None, True
        if standing is None:
            if damage := sink.damage():
                raise InputError(f"{damage}; --restart begins anew and keeps it beside")
            sink.resume()
            return None, True
        accepted = _accepted(sink, standing, identity, options, note)
        sink.resume()
    except OSError as error:
        raise InputError(f"{sink.name}: cannot be written: {error.strerror or error}") from None
    is_raised = standing.limit is not None and (options.limit is None or options.limit > standing.limit)
    return standing, "input" in accepted or is_raised or not standing.is_finished


def _accepted(
    sink: Sink,
    standing: Standing,
    identity: dict[str, Any],
    options: RunOptions,
    note: Callable[[str], None],
) -> frozenset[str]:
    """What has changed, all of it accepted. Raises InputError for what is not."""
    found = changes(standing.identity, identity)
    if (damage := sink.damage()) is not None:
        found["output"] = damage
    accepted = options.accept & found.keys()
    if "input" in accepted:
        done = f"{standing.progress.through:,}"
        note(f"the input is another one, and its rows up to number {done} count as done")
    if "output" in accepted:
        note("what the output has lost is not run again: --restart runs all rows")
    for name in accepted:
        del found[name]
    if found:
        flags = " ".join(f"--accept-changed {name}" for name in found if name != "sample")
        raise InputError(
            f"{sink.name}: holds {standing.succeeded + standing.failed:,} rows of the run "
            f"{standing.run}, but since then {'; '.join(found.values())}. "
            + (f"{flags} goes on all the same; " if "sample" not in found else "")
            + "--restart begins anew and keeps the old output; -o gives another one"
        )
    return accepted
