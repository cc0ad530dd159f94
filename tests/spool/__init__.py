"""Tests of guardagent.spool."""
