"""The network: words, tables in integers, artifact and backends."""
