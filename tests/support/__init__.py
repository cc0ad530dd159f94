"""Parts that tests share: a backend that misbehaves on command, and what reads its ledger."""

import pytest

# Asserts outside of test modules explain themselves too.
pytest.register_assert_rewrite("tests.support.accounts")
