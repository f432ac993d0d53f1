"""What a run learns and how: model, lora, train, ray."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from raylora.config.explain import close_to
from raylora.config.section import Count, Name, NotNegative, Positive, Probability, Section
from raylora.errors import ConfigError
from raylora.metrics import METRICS


def _is_metric(name: str) -> str:
    if name not in METRICS:
        raise ValueError(f"must be one of {', '.join(METRICS)}, found '{name}'{close_to(name, METRICS)}")
    return name


Metric = Annotated[str, AfterValidator(_is_metric)]
TrackerName = Literal["tensorboard", "mlflow", "wandb"]


class ModelSection(Section):
    base_model: Annotated[str, Field(min_length=1)] = Field(
        default="sentence-transformers/all-MiniLM-L6-v2", description="hub id or local folder"
    )
    revision: str | None = Field(default=None, description="branch, tag or commit on the hub")
    pooling: Literal["auto", "cls", "mean"] = Field(
        default="auto",
        description="what the head sees: the first token or the mean of all; auto = the architecture's own; mean needs "
        "one that Transformers can pool so (ModernBERT, EuroBERT)",
    )
    trust_remote_code: bool = Field(default=False, description="run Python code that comes with the base model")


class LoraSection(Section):
    r: Count = Field(default=8, description="rank")
    lora_alpha: Count = Field(default=32, description="the update is scaled by lora_alpha / r")
    lora_dropout: Probability = Field(default=0.1, description="dropout before the LoRA matrices")
    target_modules: str | list[str] = Field(
        default="all-linear",
        description="all-linear = every linear layer but the head; auto = query and value projections; module names",
    )
    bias: Literal["none", "all", "lora_only"] = Field(default="none", description="biases trained with the adapter")
    layers_to_transform: list[int] | None = Field(default=None, description="null = every layer")
    use_rslora: bool = Field(default=False, description="scale by lora_alpha / sqrt(r)")
    use_dora: bool = Field(default=False, description="weight-decomposed LoRA")
    modules_to_save: list[str] | None = Field(default=None, description="trained whole, beside the head")

    @model_validator(mode="after")
    def targets_are_named(self) -> Self:
        if isinstance(self.target_modules, str) and self.target_modules not in ("auto", "all-linear"):
            raise ValueError(f"`target_modules` must be auto, all-linear or a list, found '{self.target_modules}'")
        if not self.target_modules:
            raise ValueError("`target_modules` must name at least one module, found an empty list")
        return self


class TrainSection(Section):
    num_train_epochs: Count = Field(default=3, description="passes over the train split; each ends in an evaluation")
    learning_rate: Positive = Field(default=1.0e-3, description="highest rate of the schedule")
    per_device_train_batch_size: Count = Field(default=16, description="rows a worker steps together")
    per_device_eval_batch_size: Count = Field(default=64, description="rows a worker scores together")
    gradient_accumulation_steps: Count = Field(default=1, description="batches a worker adds up to one step")
    optim: Literal["adamw_torch", "adamw_torch_fused", "adafactor", "sgd"] = Field(
        default="adamw_torch", description="optimizer"
    )
    weight_decay: NotNegative = Field(default=0.0, description="of AdamW")
    max_grad_norm: NotNegative = Field(default=1.0, description="longer gradients are cut to this; 0 = never")
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"] = Field(
        default="linear", description="how the rate falls after the warm-up"
    )
    warmup_steps: NotNegative = Field(default=0.0, description="below 1: share of all steps")
    logging_steps: Count = Field(default=50, description="steps between two training-loss records in history.jsonl")
    save_steps: Count | None = Field(
        default=None,
        description="steps between checkpoints within an epoch, beside the one at its end; a sweep's trials save each "
        "epoch",
    )
    save_minutes: Positive | None = Field(
        default=None, description="as save_steps, by the clock; 10 loses at most ten minutes of a run on spot machines"
    )
    metric_for_best_model: Metric | None = Field(
        default=None,
        description="decides which epoch's adapter is kept (validation split), the lower loss between equals; null = "
        "accuracy, of several labels a row f1_micro, of numbers pearson",
    )
    loss: Literal["cross_entropy", "focal", "mse", "huber"] | None = Field(
        default=None,
        description="null = the task's own: cross_entropy (focal looks at what is still wrong), of numbers mse (huber "
        "minds outliers less)",
    )
    class_weights: Literal["balanced"] | dict[Name, Positive] | None = Field(
        default=None,
        description="balanced = rows of rare labels weigh more, all labels alike; or {label: weight}, others 1",
    )
    label_smoothing_factor: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="share of each target that is spread over all labels"
    )
    calibrate: bool = Field(
        default=True,
        description="fit one temperature on the validation rows and fold it into the head: scores are then what they "
        "claim; the labels stay the same",
    )
    early_stopping_patience: Count | None = Field(
        default=None, description="stop after this many epochs without a better one"
    )
    head_init: Literal["probe", "random"] = Field(
        default="probe",
        description="where the head starts: probe = logistic regression on what the frozen base says of the train "
        "rows, or at random where that knows too little",
    )
    floor: bool = Field(
        default=True,
        description="score TF-IDF and a linear probe on the same splits, and say where the adapter ends below them",
    )
    bf16: Literal["auto"] | bool = Field(
        default="auto",
        description="holds the frozen base in bf16; auto = on GPUs that have it and on CPUs with AMX, all nodes alike",
    )
    base_dropout: bool = Field(
        default=False,
        description="the base model's own dropout; off is faster and, the base being frozen, trains as well",
    )
    report_to: TrackerName | list[TrackerName] = Field(
        default=[],
        description="trackers that get settings, losses, scores, the adapter, and why a run failed; a sweep's trials "
        "are children of its run",
    )
    frozen_states_cache_bytes: Annotated[int, Field(ge=0)] = Field(
        default=2 * 2**30,
        description="memory for the states below the lowest layer of lora.layers_to_transform; beyond it, on disk",
    )

    @field_validator("class_weights", mode="before")
    @classmethod
    def weighed_labels_differ(cls, given: Any) -> Any:
        if isinstance(given, dict) and len({str(label) for label in given}) < len(given):
            raise ValueError(f"must name each label once, found {given}")
        return given

    @property
    def trackers(self) -> list[TrackerName]:
        """Of `report_to`, each once."""
        return list(dict.fromkeys([self.report_to] if isinstance(self.report_to, str) else self.report_to))

    def check_weighed(self, labels: Sequence[str]) -> None:
        """Raises:
        ConfigError: `class_weights` names a label that the data has not.
        """
        given = self.class_weights if isinstance(self.class_weights, dict) else {}
        unknown = [label for label in given if label not in labels]
        if unknown:
            raise ConfigError(
                f"`train.class_weights` names '{unknown[0]}', which is not a label of the data: "
                f"{', '.join(labels[:20])}."
            )

    def is_over(self, epoch: float, best_epoch: float) -> bool:
        """Whether a training ends with this whole epoch: none is left, or patience is."""
        patience = self.early_stopping_patience
        return epoch >= self.num_train_epochs or (patience is not None and round(epoch - best_epoch) >= patience)


class RaySection(Section):
    address: str | None = Field(
        default=None,
        description="null = the cluster this job runs in (RAY_ADDRESS), else a Ray of its own; local = its own in any "
        "case; auto = the one that `ray start` began here",
    )
    num_workers: Count | Literal["auto"] | Annotated[list[Count], Field(min_length=2, max_length=2)] = Field(
        default="auto", description="auto = one per GPU that is free, else one; [min, max] = elastic"
    )
    use_gpu: Literal["auto"] | bool = Field(default="auto", description="auto = where the cluster has GPUs")
    resources_per_worker: dict[str, NotNegative] = Field(
        default={"CPU": 1},
        description="reserved per worker; on a Ray of its own the job shares out all cores all the same",
    )
    max_failures: Annotated[int, Field(ge=-1)] = Field(
        default=3, description="restarts after a lost worker; -1 = no limit"
    )
    scale_up_timeout_s: NotNegative = Field(
        default=0.0, description="time an autoscaling cluster gets to add nodes for the workers"
    )

    @model_validator(mode="after")
    def elastic_range_grows(self) -> Self:
        if isinstance(self.num_workers, list) and self.num_workers[0] > self.num_workers[1]:
            raise ValueError(f"`num_workers` must be [min, max], found {self.num_workers}")
        return self

    @model_validator(mode="after")
    def a_worker_has_one_gpu(self) -> Self:
        gpus = self.resources_per_worker.get("GPU", 0)
        if gpus > 1:  # HF's Trainer would split each batch over them by nn.DataParallel, with other sums
            raise ValueError(
                f"`resources_per_worker.GPU` must be at most 1, found {gpus:g}: a worker trains on one GPU; for more, "
                "raise `num_workers`"
            )
        return self
