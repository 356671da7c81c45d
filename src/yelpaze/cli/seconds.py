"""A time, as a parameter of a command."""

from typing import Any

import click

from yelpaze.config.values import Duration


class Seconds(click.ParamType[float]):
    """A number of seconds above 0, or from 0 on."""

    name = "seconds"

    def __init__(self, *, zero: bool = False) -> None:
        self._zero = zero

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            seconds = float(value)
        except (TypeError, ValueError):
            try:
                seconds = Duration.parse(str(value))
            except ValueError:
                self.fail(f"{value!r} is no number of seconds", param, ctx)
        if not (0 < seconds < float("inf") or (self._zero and seconds == 0)):
            least = "from 0 on" if self._zero else "above 0"
            self.fail(f"{value!r} must be a number of seconds {least}", param, ctx)
        return seconds
