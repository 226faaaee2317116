"""What can be wrong with what was delivered, said for people."""


class ContractBroken(Exception):
    """The extract or its codebook breaks the contract: nothing of the night may go on."""


class TooMuchQuarantined(Exception):
    """More rows went to quarantine than the codebook allows."""
