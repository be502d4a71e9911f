"""One thread for each test process, set before torch starts its own; and no test writes into anyone's home."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the networks of the tests are small, and two processes share the cores


@pytest.fixture(autouse=True, scope="session")
def _cache_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KD_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
