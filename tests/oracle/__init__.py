"""The real guard-agent as judge of what we send, seal, sign and read."""
