#!/bin/sh
# Checks the compose file and the mounted configurations as far as this machine can, without a container engine.
# check-jsonschema has a virtual environment of its own in var/, as Faust pins click below what it needs.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
tool=var/check/bin/check-jsonschema
if [ ! -x "$tool" ]; then
    echo "Making var/check (once) …"
    "$python" -m venv var/check
    var/check/bin/pip install --quiet --disable-pip-version-check check-jsonschema==0.39.0
fi
"$tool" --builtin-schema vendor.compose-spec docker-compose.yml
"$python" -m pytest tests/unit/test_compose.py tests/integration/test_compose_mosquitto.py
if command -v promtool >/dev/null 2>&1; then
    promtool check rules deploy/prometheus/rules.yml
    # The rules' path is the container's.
    sed "s#/etc/prometheus/#$PWD/deploy/prometheus/#" deploy/prometheus/prometheus.yml > var/check/prometheus.yml
    promtool check config var/check/prometheus.yml
else
    echo "promtool is not here (Debian package prometheus): prometheus.yml was only checked as YAML."
fi
if docker compose version >/dev/null 2>&1; then
    docker compose config --quiet
else
    echo "docker compose is not here: no container was started."
fi
