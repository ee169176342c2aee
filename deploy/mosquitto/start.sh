#!/bin/sh
# Makes the password file with the bridge's login at the first start, then becomes mosquitto.
# A device's login:  docker compose exec mosquitto mosquitto_passwd -b /mosquitto/data/passwords NUMBER PASSWORD
#                    docker compose kill -s HUP mosquitto
set -eu
passwords=${MOSQUITTO_PASSWORDS:-/mosquitto/data/passwords}
config=${MOSQUITTO_CONFIG:-/mosquitto/config/mosquitto.conf}
[ -f "$passwords" ] || (umask 077 && : > "$passwords")
mosquitto_passwd -b "$passwords" tpstream-bridge "$TPSTREAM_BRIDGE_PASSWORD"
if [ "$(id -u)" = 0 ]; then
    chown -R mosquitto:mosquitto "$(dirname "$passwords")"
fi
exec mosquitto -c "$config"
