"""What a sweep searches and how."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from raylora.config.learning import Metric
from raylora.config.section import Count, Positive, Section
from raylora.metrics import METRICS, greater_is_better

SIZES: tuple[str, ...] = ("trainable_parameters", "latency_ms")


class TuneSection(Section):
    space: dict[str, Any] = Field(
        default={
            "lora.r": {"choice": [4, 8, 16]},
            "lora.lora_alpha_ratio": {"choice": [1, 2, 4]},
            "train.learning_rate": {"loguniform": [3e-4, 3e-3]},
        },
        description="key: {choice | grid: [values]}, {uniform | loguniform | randint: [low, high]}, "
        "{quniform: [low, high, step]}; lora.lora_alpha_ratio sets lora_alpha = ratio * r",
    )
    num_samples: Count = Field(
        default=8,
        description="samples, no two alike; with grid keys, draws of the others for each point (a grid alone runs "
        "once)",
    )
    seeds: Count = Field(
        default=1,
        description="trials of each sample, which differ by their seed alone: seed, seed + 1, ...; the sample with the "
        "best mean score wins, and of its trials the best",
    )
    metric: Metric | Annotated[list[str], Field(min_length=2, max_length=2)] | None = Field(
        default=None,
        description="null = train.metric_for_best_model; [score, trainable_parameters | latency_ms] = two objectives",
    )
    mode: Literal["max", "min"] | None = Field(default=None, description="null = the metric's own")
    search_alg: Literal["random", "grid", "optuna", "bayesian"] = Field(
        default="random", description="optuna = TPE, bayesian = Gaussian process; both need the extra `tune`"
    )
    scheduler: Literal["none", "asha", "hyperband", "median", "pbt"] = Field(
        default="asha", description="which trials are stopped early, by their score after each epoch"
    )
    grace_period: Count = Field(default=1, description="epochs before a scheduler may stop a trial")
    reduction_factor: Annotated[int, Field(ge=2)] = Field(
        default=2, description="asha, hyperband: one in so many trials goes on at each halving"
    )
    max_concurrent_trials: Count | Literal["auto"] = Field(
        default="auto", description="auto = as many as the cluster's workers hold"
    )
    time_budget_s: Positive | None = Field(
        default=None, description="no trial goes on after this; the best so far wins"
    )
    pack: Literal["auto", "off"] | Count = Field(
        default="auto", description="trials trained together over one base by one worker; auto = by tokens per step"
    )
    max_trainable_parameters: Count | None = Field(default=None, description="larger trials are not run")
    max_latency_ms: Positive | None = Field(
        default=None, description="trials whose base takes longer for one median row are not run"
    )
    refit: bool = Field(default=False, description="train the winner once more, on train and validation")

    @property
    def score(self) -> str | None:
        """The metric of a sweep, the first of two objectives; None = `train.metric_for_best_model`."""
        return self.metric[0] if isinstance(self.metric, list) else self.metric

    @model_validator(mode="after")
    def objectives_differ(self) -> Self:
        if isinstance(self.metric, list) and (self.metric[0] not in METRICS or self.metric[1] not in SIZES):
            raise ValueError(f"`metric` must be [a score, one of {', '.join(SIZES)}], found {self.metric}")
        mode = "max" if self.score is None or greater_is_better(self.score) else "min"
        if self.mode and self.score and self.mode != mode:
            raise ValueError(f"`mode` must be {mode} for {self.score}, found {self.mode}")
        return self

    @model_validator(mode="after")
    def parts_go_together(self) -> Self:
        if isinstance(self.metric, list) and self.scheduler != "none":
            raise ValueError("two objectives need `scheduler: none`: a trial is not stopped by one of them")
        if self.scheduler == "hyperband" and self.time_budget_s is None:
            raise ValueError(
                "`scheduler: hyperband` needs `time_budget_s`: Ray's HyperBand can leave paused trials standing at the "
                "end, and so the sweep. asha needs none"
            )
        if self.scheduler == "pbt" and self.search_alg not in ("random", "grid"):
            raise ValueError("`scheduler: pbt` searches by itself and needs `search_alg: random`")
        return self

    @model_validator(mode="after")
    def seeds_are_trials_of_their_own(self) -> Self:
        if self.seeds > 1 and (self.search_alg not in ("random", "grid") or self.scheduler == "pbt"):
            raise ValueError(
                "`seeds` above 1 needs `search_alg` random or grid, and a scheduler other than pbt: optuna and "
                "bayesian learn from each trial by itself, not from a mean, and pbt hands the weights of one trial on "
                "to another"
            )
        return self
