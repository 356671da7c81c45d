#!/bin/sh
# The same from a shell script: 500 products, 20 at once, 200 a second, one file each.
#
#     sh examples/shell/prices.sh http://127.0.0.1:8099 prices
#
# Run it again after an interruption: what is there already is skipped.
set -eu
shop=${1:-http://127.0.0.1:8099}
folder=${2:-prices}

n=0
while [ "$n" -lt 500 ]; do
  sku=$(printf 'lamp-%03d' "$n")
  echo "{\"url\":\"$shop/prices\",\"json\":{\"items\":[{\"sku\":\"$sku\",\"quantity\":1}]},\"output\":\"$sku.json\"}"
  n=$((n + 1))
done | yelpaze fetch --input - --output-dir "$folder" --outcomes "$folder.outcomes.jsonl" --resume \
  --fail --parallel-max 20 --host-rate 200/s --retry 4
