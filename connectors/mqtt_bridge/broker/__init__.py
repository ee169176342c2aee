"""The way in as a client of a broker that is already there."""
