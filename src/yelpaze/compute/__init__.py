"""CPU work off the event loop, behind one Protocol.

protocol.py   what a backend does
inline.py     in this process: for tests, small jobs, and `--workers 0`
processes.py  in worker processes: batches out, results back one by one
worker.py     the process's own side
handler.py    calling user code safely, in whichever process
workers.py    how people say who does the work
remote.py     at workers on other machines: the queue, batches out, results back
directory.py     which workers there are, and which have the same source
front.py      what the parent of a worker's fronts knows of them
service.py    a worker's front: gRPC on one side, processes on the other
worker.proto  what they say to each other
local.py      a worker of this machine that its clients share
functions.py  functions of a module, called from Python
source.py     what source code is recognised by
"""
