"""A causal transformer that trains on whole sequences and decodes with a cache."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Cache:
    """Keys and values of the tokens seen so far, for all layers of a transformer.

    Args:
        num_layers: layers of the transformer.
        shape: ``(B, heads, max_length, head_dim)`` of one layer's keys.
        like: tensor that gives dtype and device.
    """

    def __init__(self, num_layers: int, shape: tuple[int, int, int, int], like: Tensor):
        self.keys = like.new_empty((num_layers, *shape))
        self.values = like.new_empty((num_layers, *shape))
        self.valid = torch.zeros(shape[0], shape[2], dtype=torch.bool).to(like.device)
        self.length = 0

    def drop(self, gone: Tensor) -> Tensor:
        """Forget some sequences; the last ones take their places.

        Moving only these is many times faster than copying all that stay.

        Args:
            gone: which to forget ``(B,)``.

        Returns:
            Which sequence stands at each place now ``(M,)``.
        """
        size = len(gone) - int(gone.sum())
        holes = gone[:size].nonzero().squeeze(1)
        movers = (~gone[size:]).nonzero().squeeze(1) + size
        written = slice(self.length)
        for stored in (self.keys, self.values):
            stored[:, holes, :, written] = stored[:, movers, :, written]
        self.valid[holes] = self.valid[movers]
        self.keys, self.values = self.keys[:, :size], self.values[:, :size]
        self.valid = self.valid[:size]
        order = torch.arange(size, device=gone.device)
        order[holes] = movers
        return order


def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """Scaled dot-product attention of ``(B, heads, L, head_dim)`` under a mask.

    Sequences here have some 15 tokens, where two plain products train three times
    faster on a CPU than the fused kernel, whose backward pass is made for long ones.
    """
    if query.is_cuda:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    score = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    score = score.float().masked_fill(~mask, -1e9)
    return torch.softmax(score, -1).to(value.dtype) @ value


class Block(nn.Module):
    """Pre-norm attention and feed-forward.

    Args:
        dim: width.
        num_heads: attention heads.
    """

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.norm1 = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.feed = nn.Sequential(
            nn.Linear(dim, 4 * dim, bias=False), nn.SiLU(), nn.Linear(4 * dim, dim)
        )

    def forward(
        self,
        x: Tensor,
        mask: Tensor,
        cache: Cache | None = None,
        layer: int = 0,
        kept: Tensor | None = None,
    ) -> Tensor:
        """Update ``(B, L, dim)`` under a boolean mask ``(B, 1, L, keys)``.

        ``kept`` ``(2, B, 1, dim)`` scales what attention and feed-forward add.
        """
        batch, length, dim = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, length, 3, self.num_heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        if cache is not None:
            end = cache.length + length
            cache.keys[layer, :, :, cache.length : end] = key
            cache.values[layer, :, :, cache.length : end] = value
            key = cache.keys[layer, :, :, :end]
            value = cache.values[layer, :, :, :end]
        mixed = attention(query, key, value, mask)
        mixed = self.out(mixed.transpose(1, 2).reshape(batch, length, dim))
        if kept is not None:
            mixed = mixed * kept[0]
        x = x + mixed.to(x.dtype)
        update = self.feed(self.norm2(x))
        if kept is not None:
            update = update * kept[1]
        return x + update.to(x.dtype)


class CausalTransformer(nn.Module):
    """A stack of blocks whose tokens see only themselves and earlier ones.

    Args:
        dim: width.
        num_layers: blocks.
        num_heads: attention heads.
    """

    def __init__(self, dim: int, num_layers: int, num_heads: int):
        super().__init__()
        self.blocks = nn.ModuleList(Block(dim, num_heads) for _ in range(num_layers))
        self.norm = nn.LayerNorm(dim)
        for block in self.blocks:
            nn.init.normal_(block.out.weight, std=0.02 / (2 * num_layers) ** 0.5)
            nn.init.normal_(block.feed[2].weight, std=0.02 / (2 * num_layers) ** 0.5)

    def draw_kept(
        self, dropout: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Masks of a dropout that spares or takes a channel in all tokens alike.

        Sequences here are short, and masks that differ from token to token would be
        averaged away by attention (Y. Gal and Z. Ghahramani, NeurIPS 2016).

        Args:
            dropout: probability for each sequence ``(B,)``.
            generator: source of randomness, on the CPU.

        Returns:
            Factors ``(layers, 2, B, 1, dim)`` whose mean is 1.
        """
        shape = (len(self.blocks), 2, len(dropout), 1, self.norm.weight.shape[0])
        if dropout.is_cuda:
            seed = int(torch.randint(1 << 62, (1,), generator=generator))
            generator = torch.Generator(dropout.device).manual_seed(seed)
        drawn = torch.rand(shape, generator=generator, device=dropout.device)
        dropout = dropout[:, None, None]
        return (drawn >= dropout) / (1 - dropout)

    def forward(self, x: Tensor, valid: Tensor, kept: Tensor | None = None) -> Tensor:
        """Process whole sequences.

        Args:
            x: tokens ``(B, L, dim)``.
            valid: False where a token is padding that nobody may see, ``(B, L)``.
            kept: masks of :meth:`draw_kept`.

        Returns:
            States ``(B, L, dim)``.
        """
        length = x.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=x.device).tril()
        own = torch.eye(length, dtype=torch.bool, device=x.device)
        mask = (causal & valid[:, None, :] | own)[:, None]
        for layer, block in enumerate(self.blocks):
            x = block(x, mask, kept=None if kept is None else kept[layer])
        return self.norm(x)

    def new_cache(self, batch: int, max_length: int, like: Tensor) -> Cache:
        """Empty cache for ``batch`` sequences of at most ``max_length`` tokens."""
        block = self.blocks[0]
        head_dim = block.out.in_features // block.num_heads
        shape = (batch, block.num_heads, max_length, head_dim)
        return Cache(len(self.blocks), shape, like)

    def step(self, x: Tensor, cache: Cache, valid: Tensor | None = None) -> Tensor:
        """Append ``L`` tokens to the cache and return the state of the last.

        Args:
            x: new tokens ``(B, L, dim)``.
            cache: the cache, changed in place.
            valid: False for sequences to which the tokens do not belong, ``(B,)``.

        Returns:
            States ``(B, dim)`` of the last new token.
        """
        length = x.shape[1]
        start, end = cache.length, cache.length + length
        cache.valid[:, start:end] = True if valid is None else valid[:, None]
        causal = torch.ones(length, end, dtype=torch.bool, device=x.device).tril(start)
        own = torch.zeros(length, end, dtype=torch.bool, device=x.device)
        own[:, start:] = torch.eye(length, dtype=torch.bool, device=x.device)
        mask = (causal & cache.valid[:, None, :end] | own)[:, None]
        for layer, block in enumerate(self.blocks):
            x = block(x, mask, cache, layer)
        cache.length = end
        return self.norm(x[:, -1])
