#!/bin/sh
# A nightly job: run, retry what failed, write a report. Started again after whatever happened, it goes on.
#
#     sh examples/nightly/nightly.sh orders.csv orders.db
#
# Exit code 0: all rows done. 1: some failed twice. 3 and 130: start it again later.
set -u
orders=${1:-orders.csv}
output=${2:-orders.db}
flow=$(dirname "$0")/flow.py

yelpaze run "$flow" "$orders" -o "$output" --row-retries 1 --max-failures 50% --quiet
code=$?
if [ "$code" = 1 ]; then
  yelpaze retry "$output" --quiet # once more, the failed branches only
  code=$?
fi
yelpaze runs show "$output" --html "$output.html"
exit "$code"
