#!/bin/sh
# The servers that tests and benches run against, where they are missing: nginx and wrk, from
# Debian, as root. Elsewhere nothing is installed, and what needs them says so and skips.
# The tests start and stop their own instances, on free ports.
set -eu
missing=""
command -v nginx >/dev/null 2>&1 || missing="$missing nginx-light"
command -v wrk >/dev/null 2>&1 || missing="$missing wrk"
[ -n "$missing" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
  apt-get update -qq
  # shellcheck disable=SC2086  # a list of packages
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
else
  echo "not installed:$missing (needs Debian and root); tests that use them are skipped" >&2
fi
