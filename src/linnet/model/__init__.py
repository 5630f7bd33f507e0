"""The model and the reference modules it is made of."""

from linnet.model.attention import KeyValueStore, SelfAttention, scaled_dot_product_attention
from linnet.model.feed_forward import SiLUFeedForward, SwiGLU
from linnet.model.layers import Embedding, Linear, RMSNorm, silu, softmax
from linnet.model.loss import IGNORED, cross_entropy, linear_cross_entropy, summed_cross_entropy, summed_z_loss
from linnet.model.masks import AttentionMask, document_blocks, document_mask, documents_of
from linnet.model.rotary import RotaryEmbedding
from linnet.model.transformer import TransformerBlock, TransformerLM, parameter_shapes

__all__ = [
    "IGNORED",
    "AttentionMask",
    "Embedding",
    "KeyValueStore",
    "Linear",
    "RMSNorm",
    "RotaryEmbedding",
    "SelfAttention",
    "SiLUFeedForward",
    "SwiGLU",
    "TransformerBlock",
    "TransformerLM",
    "cross_entropy",
    "document_blocks",
    "document_mask",
    "documents_of",
    "linear_cross_entropy",
    "parameter_shapes",
    "scaled_dot_product_attention",
    "silu",
    "softmax",
    "summed_cross_entropy",
    "summed_z_loss",
]
