"""What a survey's answers may be used for, on which ground, for how long, and who of its people has agreed."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, StrictInt, StrictStr, model_validator

from expectations.codebook_parts import Column, FileName, Part

FEWEST_DAYS = 31  # the nights that follow are compared with those of a month

# The grounds of GDPR, article 6 (1), and what lets data on health be processed, article 9 (2), in its order.
LawfulBasis = Literal[
    "consent", "contract", "legal_obligation", "vital_interests", "public_task", "legitimate_interests"
]
HealthGround = Literal["explicit_consent", "health_care", "public_health", "research_or_statistics"]


class Purpose(Part):
    """`statistics`: nothing about one person is ever shown. `care`: it is, to whom the deployment names, by consent.

    `lawful_basis` and `health_ground` are named as the GDPR has them; people's tables are kept for `retention_days`.
    """

    use: Literal["statistics", "care"] = "statistics"
    lawful_basis: LawfulBasis | None = None
    health_ground: HealthGround | None = None
    retention_days: int | None = Field(default=None, ge=FEWEST_DAYS)

    @model_validator(mode="after")
    def check_care(self) -> Self:
        stated = {"lawful_basis": self.lawful_basis, "retention_days": self.retention_days}
        missing = [f"`{name}`" for name, value in stated.items() if value is None]
        if self.use == "care" and missing:
            raise ValueError(f"`care` needs {' and '.join(missing)}")
        return self

    @property
    def needs_consent(self) -> bool:
        """Whether people's consent is what the use rests on."""
        return self.use == "care" or self.lawful_basis == "consent" or self.health_ground == "explicit_consent"


def _refuse_flag(code: Any) -> Any:
    if isinstance(code, bool):
        raise ValueError("YAML reads yes, no, on, off, true and false as flags: write the code in quotes")
    return code


Code = Annotated[StrictInt | StrictStr, BeforeValidator(_refuse_flag)]


class Consent(Part):
    """The column that says whether a person has agreed, and its codes. An empty one is no agreement.

    `list` names a file of the extract that has the id and this column, and nothing of the answers: whoever is not on it
    has not agreed, and who stands on it without having answered is passed over.
    """

    column: Column
    list: FileName | None = None
    agreed: tuple[Code, ...] = Field(min_length=1)
    refused: tuple[Code, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def check_codes(self) -> Self:
        if self.list and ".." in Path(self.list).parts:
            raise ValueError("`list` must lie in the extract's folder")
        if both := sorted(set(self.agreed_texts) & set(self.refused_texts)):
            raise ValueError(f"the code {both[0]} stands in both `agreed` and `refused`")
        return self

    @property
    def agreed_texts(self) -> tuple[str, ...]:
        return tuple(str(code) for code in self.agreed)

    @property
    def refused_texts(self) -> tuple[str, ...]:
        return tuple(str(code) for code in self.refused)
