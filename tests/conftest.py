"""No test writes into the home of whoever runs it."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True, scope="session")
def _cache_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KD_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
