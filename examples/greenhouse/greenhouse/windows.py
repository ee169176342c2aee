"""Ten-second means of the temperature, per device, by the devices' own time."""

from tpstream import app

app.window("temperature_mean_10s", key="temperature", size="10s", aggregate="mean", lateness="2s", idle="30s")
