"""Flows: rows through a graph of calls and CPU steps.

flow.py          what people write: Flow, @flow.request, @flow.compute
step.py          one step of it
plan.py          what a flow runs: its steps and where they come from
annotation.py    what a parameter's annotation asks for
graph.py         the graph, checked before the first call
context.py       what the rows of one run share
execution.py     one row on its way through the graph
runner.py        many rows, within bounds
arguments.py     from answers to arguments, here or in a worker
failure.py       why a row has no result
dead_letters.py  what is kept of such a row
loading.py       flow files
handler.py       a flow in its worker processes
exports.py       what a worker serves
codec.py         what travels to a worker on another machine
"""
