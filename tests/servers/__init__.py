"""Real servers, each in processes of its own, in front of a backend that keeps a ledger."""
