"""Names of published ways to compute attention. All of them compute what nn.blocks.Attention does.

Models accept them in set_attn_processor, and go on as before.
"""


class AttnProcessor:
    """Attention as plain matrix products."""


class AttnProcessor2_0:
    """Attention by torch's scaled_dot_product_attention, which is what Attention calls."""


class XFormersAttnProcessor:
    """Attention by the kernels of xformers."""

    def __init__(self, attention_op=None):
        if attention_op is not None:
            raise ValueError(f"XFormersAttnProcessor: not supported: attention_op={attention_op!r}")
