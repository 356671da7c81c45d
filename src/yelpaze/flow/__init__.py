"""Flows: rows through a graph of calls and CPU steps.

flow.py      what people write: Flow, @flow.request, @flow.compute
annotation.py  what a parameter's annotation asks for
graph.py     the graph, checked before the first call
arguments.py from answers to arguments, here or in a worker
failure.py   why a row has no result
row.py       one row on its way through the graph
runner.py    many rows, within bounds
loading.py   flow files, in this process and in workers
"""
