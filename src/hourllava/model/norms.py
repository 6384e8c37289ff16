"""torch's fused RMSNorm instead of the decoder's own, which runs six kernels in float32.

On an H100 a norm of [9000, 2048] in bf16 takes 0.05 ms instead of 0.33, with its backward pass 0.18 instead of 1.08:
7 % of a training step of the 3B model. The fused norm multiplies by its weight in float32, before it rounds to bf16; it
computes the same otherwise.
"""

from typing import cast

from torch import Tensor, nn


def fuse_norms(decoder: nn.Module) -> None:
    """Replace every RMSNorm of a decoder by `nn.RMSNorm`, which has the same parameter. Call it before loading weights.

    Only norms with Llama's formula are replaced: normalise, then multiply by the weight.
    """
    for parent in list(decoder.modules()):
        for name, norm in list(parent.named_children()):
            if type(norm).__name__.endswith("RMSNorm") and hasattr(norm, "variance_epsilon"):
                weight, epsilon = cast(Tensor, norm.weight), cast(float, norm.variance_epsilon)
                fused = nn.RMSNorm(weight.shape, epsilon, device=weight.device, dtype=weight.dtype)
                setattr(parent, name, fused)
