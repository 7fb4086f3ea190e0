"""The files of a store: cells, records, failures, leases, runs. Never imports torch."""
