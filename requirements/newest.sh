#!/bin/sh
# Runs the tests of the consumer and the worker with the newest Faust and aiokafka, past the bounds of pyproject.toml, in an
# environment of their own. Called by `make newest` with the path of uv.
set -eu
cd "$(dirname "$0")/.."
uv=$1
shift
environment=.local/newest

"$uv" venv --quiet --clear --python .venv/bin/python "$environment"
"$uv" pip sync --quiet --python "$environment/bin/python" --require-hashes requirements/dev.txt
"$uv" pip install --quiet --python "$environment/bin/python" --no-build-isolation --no-deps \
    --editable ./streaming_exporter --editable .
"$uv" pip install --quiet --python "$environment/bin/python" --no-deps --upgrade faust-streaming aiokafka
"$uv" pip list --quiet --python "$environment/bin/python" | grep -E '^(faust-streaming|aiokafka) '
exec "$environment/bin/python" -m pytest --numprocesses 3 --dist loadgroup "$@" \
    tests/unit/kafka tests/unit/worker tests/integration/kafka tests/integration/worker tests/e2e/test_requests.py \
    tests/chaos/test_rebalances.py
