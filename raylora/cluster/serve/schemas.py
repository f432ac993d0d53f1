"""Bodies of requests and answers, as OpenAPI describes them."""

from itertools import islice
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, FailFast, Field, PlainValidator, model_validator

from raylora.cluster.serve.texts import check_data, check_texts
from raylora.tasks import Function, ProblemType

TOLD = 5  # faults of one body; more are not read
Pair = Annotated[list[str], Field(min_length=2, max_length=2)]
# not pydantic's own check of these types: it tries each of them to the end, and makes errors of every element
Inputs = Annotated[
    str | list[str] | list[Pair],
    PlainValidator(check_texts, json_schema_input_type=str | list[str] | list[Pair]),
]
Data = Annotated[
    list[str] | list[list[str]], PlainValidator(check_data, json_schema_input_type=list[str] | list[list[str]])
]

Threshold = Annotated[
    float,
    Field(
        ge=0, le=1, description="of several labels a text: the score from which on each is told, in place of its own"
    ),
]
MinAccuracy = Annotated[
    float,
    Field(
        gt=0,
        lt=1,
        description="of one label a text: how often answers are to be right, of what the adapter promises; below its "
        "score there is no label",
    ),
]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def few_unknown_keys(cls, given: Any) -> Any:
        """An error each for 60,000 unknown keys takes half a second."""
        if not isinstance(given, dict):
            return given
        unknown = list(islice((key for key in given if key not in cls.model_fields), TOLD))  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        return {key: given[key] for key in (*cls.model_fields, *unknown) if key in given}


class Parameters(Body):
    top_k: Annotated[int, Field(ge=1)] | None = Field(
        default=None,
        description="entries per input, the best, whatever their thresholds; by default all, of several labels a text "
        "those that reach theirs",
    )
    function_to_apply: Function | None = Field(default=None, description="to the logits; by default the task's own")
    threshold: Threshold | None = None
    min_accuracy: MinAccuracy | None = None
    adapter: str | None = Field(default=None, description="adapter's name; the default one if not given")


class PredictBody(Body):
    """Hugging Face's text-classification request."""

    inputs: Inputs = Field(description="a text, a list of texts, or a list of pairs of texts")
    parameters: Parameters | None = None


class Score(BaseModel):
    """`label` is null below the score that `min_accuracy` needs."""

    label: str | None
    score: float


class PutBody(Body):
    path: Annotated[str, Field(min_length=1, description="the adapter's folder, or that of the run that made it")]
    traffic: Annotated[float, Field(gt=0, le=1, strict=False)] = Field(
        default=1.0, description="below 1: a canary for this share of the requests"
    )


class Canary(BaseModel):
    version: str
    traffic: float


class AdapterInfo(BaseModel):
    """Known of a loaded adapter: its labels, task, whether it takes pairs, thresholds by label, and by accuracy that
    can be asked for the share of texts that get a label then."""

    name: str
    version: str | None
    path: str | None
    labels: list[str] | None
    loaded: bool
    task: ProblemType | None = None
    pairs: bool | None = None
    thresholds: dict[str, float] | None = None
    min_accuracy: dict[str, float] | None = None
    previous: str | None = None
    canary: Canary | None = None


class AdapterList(BaseModel):
    default: str | None
    adapters: list[AdapterInfo]


class MissingReplica(BaseModel):
    replica: str
    reason: str


class ChangeAnswer(BaseModel):
    """`missing`, with 202: replicas that do not serve the change yet; it is kept, and they go on trying."""

    name: str | None = None
    version: str | None = None
    default: str | None = None
    missing: list[MissingReplica] | None = None


class Tensor(Body):
    """KServe's Open Inference Protocol v2: a request's tensor of texts."""

    model_config = ConfigDict(extra="ignore")

    name: str
    shape: Annotated[list[int], FailFast(), Field(min_length=1, max_length=2)]
    datatype: Literal["BYTES"]
    data: Data


class InferParameters(Body):
    """Those of raylora; gateways add some of their own."""

    model_config = ConfigDict(extra="ignore")

    function_to_apply: Function | None = Field(default=None, description="to the logits; by default the task's own")
    threshold: Threshold | None = None
    min_accuracy: MinAccuracy | None = None


class InferBody(Body):
    model_config = ConfigDict(extra="ignore")

    id: str | None = None
    parameters: InferParameters | None = None
    inputs: Annotated[list[Tensor], Field(min_length=1, max_length=1)]


class OutputTensor(BaseModel):
    name: str
    datatype: Literal["BYTES", "FP32"]
    shape: list[int]
    data: list[str] | list[float]


class InferAnswer(BaseModel):
    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[OutputTensor]


class ErrorBody(BaseModel):
    error: dict[Literal["type", "message"], Any]
