"""The embedded store: chdb, the whole of ClickHouse in a wheel, behind ClickHouse's own HTTP interface.

`python -m tpstream.embedded.store` serves `settings.data_dir/store` on `host:store_port`.
Workers, BI tools and tests speak to it as they do to a server, and know no difference.
"""
