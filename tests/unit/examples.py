"""How many examples of Hypothesis, and inputs of the fuzzer, a test has."""

from __future__ import annotations

import os

#: Set where the Python is another, and the code the same as in a run with all of them.
FEW = bool(os.environ.get("FEW_EXAMPLES"))


def examples(count: int) -> int:
    """So many, or a tenth of them."""
    return max(10, count // 10) if FEW else count
