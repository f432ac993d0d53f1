"""What every bench says of itself: the machine it ran on, and which targets it met."""

from pathlib import Path
from typing import Literal

from raylora.model.base.precision import cpu_flags
from raylora.records import Say


def target(say: Say, what: str, value: float, sign: Literal[">=", "<="], bound: float) -> None:
    """Say a figure beside its target, and whether it was met."""
    met = value >= bound if sign == ">=" else value <= bound
    say(f"  {'met   ' if met else 'MISSED'}  {what}: {value:.2f} (target {sign} {bound:g})")


def cpu() -> str:
    """The processor's name and those of its flags that matter here."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return "unknown"
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    flags = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in cpu_flags()]
    return f"{name}, flags: {' '.join(flags)}"


def has_amx() -> bool:
    return "amx_bf16" in cpu_flags()


def has_bf16() -> bool:
    """Whether the processor has instructions for bf16; without them it is slower than fp32."""
    return bool(cpu_flags() & {"amx_bf16", "avx512_bf16"})
