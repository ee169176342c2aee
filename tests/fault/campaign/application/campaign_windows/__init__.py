"""What a campaign's platform computes; `fault.campaign.stream.WINDOWS` says the same to the oracle."""

from tpstream import app

app.window("numbers", key="n", size="5s", aggregate="sum", lateness="2s", idle="1d")
app.window("heat", key="t", size="2s", aggregate="mean", lateness="2s", idle="1d")
app.window("quiet", key="q", size="5s", aggregate="sum", lateness="0s", idle="3s")
