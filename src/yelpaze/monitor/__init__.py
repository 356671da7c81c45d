"""Uptime checks from many places: incidents, alarms, history.

    probe ──[results]──→ store, evaluate ──[transitions]──→ alarm ──[alarms]──→ hooks

config/      files to a `MonitorConfig`        check.py       a check, as all services know it
probe/       makes the checks of a location    conditions.py  what an answer must fulfil
storage/     raw results, and their sums       records.py     what is on the bus
evaluate/    the fold over each check          tables.py      what is in the store
alarm/       groups, muting, reminders         queries.py     what pages and API read
"""
