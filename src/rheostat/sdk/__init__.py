"""The client library: a local replica of one environment, kept current by a stream of changes."""
