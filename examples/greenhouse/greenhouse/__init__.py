"""The greenhouse's windows and agents; a worker started with --app imports them from here."""

from greenhouse import dew_point, windows

__all__ = ["dew_point", "windows"]
