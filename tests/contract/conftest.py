"""Failed assertions of the shipped contract are explained like those of test modules."""

import pytest

pytest.register_assert_rewrite("tests.contract.store_contract")
