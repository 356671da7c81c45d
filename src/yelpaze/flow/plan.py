"""What a flow runs. `Flow` is what people write; everything below it takes the plan."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from yelpaze.flow.graph import Graph, build
from yelpaze.flow.step import Step
from yelpaze.model.errors import FlowError


class Plan:
    """The steps of a flow, their graph, and the options that hold for all of them.

    `where` is `file:line` of the definition, in the module named `module`. `owner` is the object by which
    that module knows the flow, so that worker processes can find it again.
    """

    def __init__(
        self,
        name: str,
        *,
        where: str,
        module: str,
        owner: object,
        engine_options: Mapping[str, Any],
        deadline: float | None,
        secrets: Iterable[str],
    ) -> None:
        self.name = name
        self.where = where
        self.module = module
        self.owner = owner
        self.engine_options = dict(engine_options)
        self.deadline = deadline
        self.secrets = tuple(secrets)
        self.steps: dict[str, Step] = {}
        self._graph: Graph | None = None

    @property
    def file(self) -> Path:
        """The file that defines it."""
        return Path(self.where.rpartition(":")[0])

    def add(self, step: Step) -> None:
        """Add a step. Raises FlowError if its name is taken."""
        if step.name == "row":
            raise FlowError(f"{step.where}: a step can't be called `row`: that is the input record")
        if step.name in self.steps:
            first = self.steps[step.name].where
            raise FlowError(f"{step.where}: there is a step {step.name!r} already, at {first}")
        self.steps[step.name] = step
        self._graph = None

    def graph(self) -> Graph:
        """The checked graph. Raises FlowError, with file and line, for one that cannot run."""
        if self._graph is None:
            self._graph = build(self.name, self.where, self.steps)
        return self._graph
