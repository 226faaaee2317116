"""What a codebook's purpose lets a command do."""

from expectations.codebook import Codebook
from jobs.errors import UsageError


def require_care(book: Codebook) -> None:
    """Raises UsageError where nothing about one person may be shown: everywhere but under `purpose: {use: care}`."""
    if book.purpose.use != "care":
        raise UsageError(
            f"the purpose of {book.codebook} is statistics: nothing about one person is shown; the codebook of a "
            "survey that its people have agreed to for their own care says `purpose: {use: care}`"
        )
