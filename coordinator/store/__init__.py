"""The coordinator's durable state: the ledger's envelopes and what stands beside them. Only the engine writes."""
