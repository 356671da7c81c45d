#!/bin/sh
# A run with two workers, one of which goes away in the middle: no row is lost.
#
#     sh examples/remote_workers/run.sh loans.jsonl
#
# On machines of their own the workers would listen on these machines' addresses.
set -eu
here=$(dirname "$0")
loans=${1:-loans.jsonl}
output=two_workers.results.jsonl
first=${FIRST:-127.0.0.1:50061}
second=${SECOND:-127.0.0.1:50062}

workers=""
trap 'kill $workers 2>/dev/null || true; wait' EXIT
trap 'exit 130' INT TERM
yelpaze worker "$here/flow.py" --listen "$first" --processes 1 &
leaving=$!
yelpaze worker "$here/flow.py" --listen "$second" --processes 1 &
workers="$leaving $!"

rm -f "$output"
yelpaze run "$here/flow.py" "$loans" --workers "grpc://$first,grpc://$second" --restart --quiet -o "$output" &
run=$!
until [ -s "$output" ] || ! kill -0 $run 2>/dev/null; do sleep 0.1; done # rows have come back
kill -9 $leaving
wait $run
echo "$(wc -l <"$output") rows, with one worker killed on the way"
