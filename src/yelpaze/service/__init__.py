"""The life of a long-running command, the same for all of them.

runner.py       start, ready, run, drain, end; `Part` is what a command consists of
signals.py      SIGTERM, SIGINT, SIGHUP, SIGUSR1: the only place that sets handlers, but for child processes
log.py          one line an event: text, or JSON
endpoint.py     /metrics, /healthz and /readyz on the address of `--metrics`
descriptors.py  how many descriptors there may be, and what that allows
"""
