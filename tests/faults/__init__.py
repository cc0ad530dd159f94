"""Scripted faults over real sockets and real processes; each case ends with the ledger equation."""
