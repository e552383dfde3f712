"""Any file to records, the ledger that proves nothing was lost, and the shards both are kept in."""
