"""The fault campaign: numbered points through a real platform while its parts are broken, and the ledger afterwards.

`python -m fault.campaign --help` (with `tests` on PYTHONPATH) says how; docs/guarantees.md says what it showed.
"""
