"""What an endpoint serves and how."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from raylora.config.section import Count, Positive, Section

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
AdapterName = Annotated[str, Field(pattern=NAME)]

# of ray.serve.config.AutoscalingConfig; target_ongoing_tokens is raylora's own, in place of target_ongoing_requests
AUTOSCALING = {
    "min_replicas",
    "initial_replicas",
    "max_replicas",
    "target_ongoing_tokens",
    "metrics_interval_s",
    "look_back_period_s",
    "upscale_delay_s",
    "downscale_delay_s",
    "downscale_to_zero_delay_s",
}


class ServeSection(Section):
    adapters: dict[AdapterName, str] = Field(
        default={}, description="name: path of an adapter folder, or of a run that holds one; local, s3:// or gs://"
    )
    adapter_root: str | None = Field(
        default=None,
        description="folder of adapters (or of runs) served by the names of its folders, loaded when first asked for",
    )
    default: AdapterName | None = Field(
        default=None, description="adapter of POST /predict; null = the first of `adapters`"
    )
    host: str = Field(default="127.0.0.1", description="address to listen on; 0.0.0.0 = from anywhere")
    port: Annotated[int, Field(ge=1, le=65535)] = Field(default=8000, description="port to listen on")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="of base and adapters; auto = bfloat16 on GPUs that have it and on CPUs with AMX"
    )
    int8: bool = Field(
        default=False, description="true = the base's linear layers in int8, on CPUs; what that costs is said at start"
    )
    merge: Literal["auto", "off"] = Field(
        default="auto", description="auto = one adapter that is served alone is merged into the base"
    )
    max_batch_tokens: Count = Field(default=2048, description="tokens, padding included, that the model runs together")
    max_queued_tokens: Count = Field(default=65536, description="tokens that may wait at a replica; beyond it, 429")
    max_queued_requests: Count = Field(default=1024, description="requests that may wait at a replica; beyond it, 429")
    max_body_bytes: Count = Field(default=2**20, description="longer request bodies are refused, 413")
    max_inputs: Count = Field(default=256, description="texts of one request; more are refused, 413")
    max_characters: Count = Field(default=20_000, description="of one text; longer ones are refused, 413")
    cache_bytes: Count = Field(
        default=2**30, description="adapters that a replica holds in memory; the least recently used go first"
    )
    autoscaling_config: dict[str, float] = Field(
        default={"min_replicas": 1, "max_replicas": 1},
        description="Ray Serve's; target_ongoing_tokens (default 4096) replaces target_ongoing_requests",
    )
    ray_actor_options: dict[str, Any] = Field(
        default={"num_cpus": 1},
        description="what a replica reserves; on a Ray of its own one replica has all cores; num_gpus: 1 = on a GPU",
    )
    api_keys: str | None = Field(
        default=None,
        description="file of hashed keys, or env:NAME of a variable that holds them; `raylora key` makes one",
    )
    cors_origins: list[str] = Field(
        default=[],
        description="web origins whose pages may call the endpoint; * = all, but to change adapters without keys",
    )
    watch_s: Positive = Field(default=10.0, description="how often changed adapters in `adapter_root` are looked for")

    @model_validator(mode="after")
    def default_is_served(self) -> Self:
        if self.default and not self.adapter_root and self.default not in self.adapters:
            raise ValueError(f"`default` must be one of `adapters` ({', '.join(self.adapters)}), found {self.default}")
        return self

    @model_validator(mode="after")
    def int8_is_beside_float32(self) -> Self:
        if self.int8 and self.dtype == "bfloat16":
            raise ValueError("`int8` goes with `dtype` float32 or auto, found bfloat16")
        if self.int8 and self.ray_actor_options.get("num_gpus"):
            raise ValueError("`int8` is for CPUs, found `ray_actor_options` with num_gpus")
        return self

    @model_validator(mode="after")
    def a_replica_has_one_gpu(self) -> Self:
        gpus = self.ray_actor_options.get("num_gpus") or 0
        if not isinstance(gpus, int | float) or not 0 <= gpus <= 1:
            raise ValueError(
                f"`ray_actor_options.num_gpus` must be 0 to 1, found {gpus}: a replica runs on one GPU; for more, "
                "raise `autoscaling_config`"
            )
        return self

    @model_validator(mode="after")
    def scales_as_ray_does(self) -> Self:
        unknown = self.autoscaling_config.keys() - AUTOSCALING
        if unknown:
            raise ValueError(
                f"`autoscaling_config` has no {', '.join(sorted(unknown))}; known: {', '.join(sorted(AUTOSCALING))}"
            )
        fewest, most = (self.autoscaling_config.get(name, 1) for name in ("min_replicas", "max_replicas"))
        if not 0 <= fewest <= most or most < 1:
            raise ValueError(
                f"`autoscaling_config` must have 0 <= min_replicas <= max_replicas, found {fewest} and {most}"
            )
        return self
