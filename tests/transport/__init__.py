"""Tests of guardagent.transport."""
