"""What all sections of the config share."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from raylora.tasks.parsed import as_text

SEED_END = 2**32  # numpy takes no seed from here on
Seed = Annotated[int, Field(ge=0, lt=SEED_END)]
Count = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Probability = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def name_of(value: Any) -> str:
    """A label, or the position of a column, as text: as files are read, the number 1 is "1", and true "true".

    Raises:
        PydanticCustomError: it is neither a text nor a whole number.
    """
    value = value.item() if hasattr(value, "item") else value  # of numpy
    if isinstance(value, str):
        return value
    found = as_text(value, "name")
    if found.fault:
        raise PydanticCustomError("name_type", "must be a text or a whole number")
    return found.form


Name = Annotated[str, BeforeValidator(name_of)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, validate_default=True)
