"""MQTT <-> Kafka: two ways in (devices connect to us; we connect to a broker) with one core."""
