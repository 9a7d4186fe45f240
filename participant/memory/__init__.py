"""What the participant remembers: its copy of the ledger, what it signed and sent, what people ordered, what it measured."""
