"""What a measured platform computes: a window over every load device, and one to time a command by."""

from tpstream import app

app.window("temperature_mean_10s", key="temperature", size="10s", aggregate="mean", lateness="2s", idle="30s")
app.window("command_probe", key="command_probe", size="1s", aggregate="mean", lateness=0, idle="30s")
