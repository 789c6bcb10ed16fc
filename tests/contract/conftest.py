"""Failed assertions of the shipped contract are explained like those of test modules."""

import pytest

pytest.register_assert_rewrite(
    "tests.contract.contract_base",
    "tests.contract.contract_life",
    "tests.contract.contract_logs",
    "tests.contract.contract_rows",
    "tests.contract.honest_client",
)
