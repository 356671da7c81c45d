"""Settings of services: files, environment and flags in, one frozen struct or all mistakes at once out.

loader.py       `Schema` of a service's settings, and `load`
document.py     a file in YAML, TOML or JSON, and the lines of its settings
environment.py  YELPAZE_SECTION__NAME
convert.py      plain values → structs, with every mistake
values.py       durations, sizes, secrets
"""
