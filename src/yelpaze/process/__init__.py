"""Child processes: started fresh (never forked), never outliving their parent, with frames between.

frames.py     values on a socket
child.py      a child process as its parent sees it
parenthood.py the child's own side: its channel, and its end with its parent
memory.py     the most memory that a process has had
"""
