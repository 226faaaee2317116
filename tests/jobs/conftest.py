"""What tests that call the command in their own process share."""

from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture
def own_logs() -> Iterator[None]:
    """The command's logs go to the test's own stream; afterwards all is as it was."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)
