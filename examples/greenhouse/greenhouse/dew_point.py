"""An agent of one's own: the dew point (°C), stored beside the reading that it was made from.

Where leaves are colder than the dew point they get wet, and mould follows. Magnus formula,
with the coefficients of Sonntag (1990) over water. What is sent comes back to this agent like
any other telemetry; it has no humidity, so nothing is made of it again.
"""

from math import log

from tpstream import Batch, app, topics
from tpstream.messages import Point, Telemetry


@app.batch_agent(topics.uplink_telemetry)
async def dew_point(batch: Batch) -> None:
    for record, message in batch.values():
        here = {point.key: point for point in message.points if point.number is not None}
        if "temperature" in here and "humidity" in here and here["humidity"].number > 0:
            t = here["temperature"]
            magnus = log(here["humidity"].number / 100) + 17.62 * t.number / (243.12 + t.number)
            dew = Point("dew_point", t.ts, round(243.12 * magnus / (17.62 - magnus), 2), ts_from=t.ts_from)
            batch.send_beside(record, topics.uplink_telemetry, Telemetry(message.device, (dew,)), key=message.device)
