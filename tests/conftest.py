"""Each test process has one thread, set before torch is imported; each test has one seed; none writes into a home."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the networks of the tests are small, and two processes share the cores


@pytest.fixture(autouse=True)
def _same_draws_in_any_order() -> None:
    """Two processes share the tests, so which one draws before another differs from run to run."""
    import torch  # not above: the number of threads is set first

    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def _cache_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KD_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
