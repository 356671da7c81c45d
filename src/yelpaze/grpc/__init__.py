"""gRPC servers in many processes behind one port, and the client that finds the least busy one.

options.py     what a server is asked for
address.py     where it listens
target.py      how a client names it
supervisor.py  the parent: start, stop, roll
server_processes.py  its processes: how they come and go
replacement.py when one is replaced
child.py       one of them, as the parent sees it
program.py     what it needs to find the program again
totals.py      what all have done
control.py     what parent and processes say to each other
process.py     a process: gRPC's server, health, reflection, who is busy
counting.py    calls counted as they come and go
raised.py      what servicers raise, as gRPC can answer it
threads.py     the threads that run servicers which are not async
channel.py     the client: the least busy process gets the call
peers.py       what a client knows of the processes
watching.py    how a process says how busy it is
"""
