"""CPU work off the event loop, behind one Protocol.

protocol.py   what a backend does
inline.py     in this process: for tests, small jobs, and `--workers 0`
processes.py  in worker processes: batches out, results back one by one
worker.py     the process's own side
"""
