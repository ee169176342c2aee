"""The greenhouse's windows and agents; a worker started with --app imports every module in here."""
