"""Exit codes, and the faults that are neither the contract's nor the model's."""

import errno
from pathlib import Path

from pyspark.errors import PySparkException

from expectations.errors import ContractBroken, TooMuchQuarantined
from model.errors import ModelError

DONE, FAULT, USAGE, CONTRACT_BROKEN, TOO_MUCH_QUARANTINED, LAKE_HELD, NOT_SIGNED_OFF, EXPOSED = range(8)
LATE, FAILED, DRIFTED = range(10, 13)  # what `mindcensus status` says of the last night

MACHINE_FAULTS = {
    errno.ENOSPC: "the disk is full: free some space and run the stage again",
    errno.EDQUOT: "the disk quota is used up: free some space and run the stage again",
    errno.EACCES: "no permission: run as the lake's owner, or give that user the folder",
    errno.EPERM: "no permission: run as the lake's owner, or give that user the folder",
    errno.EROFS: "the file system is read-only: mount it writable and run the stage again",
}


class UsageError(Exception):
    """The command was called with arguments that do not go together."""


class LakeHeld(Exception):
    """Another run holds the lake."""


class LeaseLost(LakeHeld):
    """This run stood still, and another one has taken the lake."""


class StageError(Exception):
    """A stage cannot go on: its message says what is wrong and what to do."""


class NotSignedOff(Exception):
    """A release waits for a person to sign it off."""


class Exposed(Exception):
    """Public tables give protected figures away."""


class AuditBroken(Exception):
    """The access log is not the one that was written."""


def exit_code(error: BaseException) -> int:
    """Its exit code: 2 usage, 3 contract, 4 quarantine, 5 lake held, 6 not signed off, 7 exposed, 1 anything else."""
    match error:
        case UsageError():
            return USAGE
        case ContractBroken() | AuditBroken():
            return CONTRACT_BROKEN
        case TooMuchQuarantined():
            return TOO_MUCH_QUARANTINED
        case LakeHeld():
            return LAKE_HELD
        case NotSignedOff():
            return NOT_SIGNED_OFF
        case Exposed():
            return EXPOSED
        case _:
            return FAULT


TOLD = (
    *(UsageError, ContractBroken, TooMuchQuarantined, LakeHeld, StageError, NotSignedOff, Exposed, AuditBroken),
    ModelError,
)


def explain_fault(error: BaseException) -> str | None:
    """One sentence for a fault that people can mend, None for one that only its traceback explains."""
    if isinstance(error, TOLD):
        return str(error)
    if isinstance(error, OSError) and error.errno in MACHINE_FAULTS:
        where = f"{Path(error.filename)}: " if error.filename else ""
        return where + MACHINE_FAULTS[error.errno]
    text = str(error)
    if "No space left on device" in text:
        return MACHINE_FAULTS[errno.ENOSPC]
    if "Permission denied" in text:
        return MACHINE_FAULTS[errno.EACCES]
    if "java.lang.OutOfMemoryError" in text:
        return "the JVM's memory is used up: set MINDCENSUS_DRIVER_MEMORY higher, or take a machine with more memory"
    return None


def name_fault(error: BaseException) -> str:
    """The error's type, and the condition by which Spark names it: neither holds a value."""
    condition = error.getCondition() if isinstance(error, PySparkException) else None
    return type(error).__name__ + (f" [{condition}]" if condition else "")
