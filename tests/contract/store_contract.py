"""The contract of the storage port as tests. Each backend runs all of them: see `test_stores.py`."""

from __future__ import annotations

from tests.contract.contract_intents import IntentContract
from tests.contract.contract_life import LifeContract
from tests.contract.contract_logs import LogContract
from tests.contract.contract_messages import MessageContract
from tests.contract.contract_rows import RowContract


class StoreContract(LogContract, MessageContract, RowContract, IntentContract, LifeContract):
    """Subclasses say in `medium` where the data is; everything else holds for every store."""
