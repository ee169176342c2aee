#!/bin/sh
# Brings mosquitto and Chromium where this machine may install Debian packages; says so where not.
# The tests that need what is missing then say that they were left out, and for want of what.
missing=""
command -v mosquitto >/dev/null 2>&1 && command -v mosquitto_pub >/dev/null 2>&1 || missing="mosquitto mosquitto-clients"
command -v chromium >/dev/null 2>&1 || missing="$missing chromium"
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "Installing for the tests: $missing …"
    export DEBIAN_FRONTEND=noninteractive
    # The services that these packages would start are not wanted: tests start their own.
    mkdir -p /run/tpstream-no-start
    (apt-get update -qq && apt-get install -y -qq --no-install-recommends $missing) >/run/tpstream-no-start/apt.log 2>&1 \
        || echo "Could not install $missing; the tests that need them are left out."
    command -v service >/dev/null 2>&1 && service mosquitto stop >/dev/null 2>&1
else
    echo "Not installed here: $missing. The tests that need them are left out."
fi
exit 0
