"""What all sections of the config share."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

SEED_END = 2**32  # numpy takes no seed from here on
Seed = Annotated[int, Field(ge=0, lt=SEED_END)]
Count = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Probability = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, validate_default=True)
