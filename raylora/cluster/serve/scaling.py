"""How many replicas an endpoint needs, by the tokens that wait or run there."""

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray.serve.config import AutoscalingContext

TOKENS = "ongoing_tokens"


def replicas_for(tokens: float, waiting_outside: float, target: float) -> int:
    """Enough that each has at most `target` tokens; one where a request finds none at all."""
    return max(math.ceil(tokens / target), 1 if waiting_outside > 0 else 0)


def by_tokens(context: "AutoscalingContext") -> tuple[int, dict[str, Any]]:
    """Ray Serve's policy function; the target is in the config as tokens in place of requests."""
    tokens = sum((context.aggregated_metrics or {}).get(TOKENS, {}).values())
    assert context.config, "autoscaling has a config"
    return replicas_for(tokens, context.total_num_requests, context.config.get_target_ongoing_requests()), {}
