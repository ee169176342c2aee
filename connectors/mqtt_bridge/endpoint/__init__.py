"""The way in on which devices connect to the bridge: MQTT 3.1.1 and 5."""
