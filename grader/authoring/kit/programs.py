"""What other right programs begin with, for others.py: modules under the names that checkpoints have."""

from collections.abc import Iterable

import torch.nn.functional as F
from torch import Tensor, nn

from grader.config import Config


class ModelBase(nn.Module):
    """A decoder without its head: embedding, layers, norm, and the rotations of all positions.

    norm: of hidden_size channels. table: [2, positions, channels], of which a forward takes its own part.
    """

    table: Tensor

    def __init__(self, config: Config, norm: nn.Module, layers: Iterable[nn.Module], table: Tensor) -> None:
        super().__init__()
        self.config, self.norm, self.layers = config, norm, nn.ModuleList(layers)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.register_buffer("table", table, persistent=False)

    def embedded(self, ids: Tensor) -> Tensor:
        """ids [B, T] -> [B, T, hidden_size]."""
        return F.embedding(ids, self.embed_tokens.weight)
