"""Draw text from a model, a token at a time."""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F


class CachedModel:
    """A model that keeps the keys and values of `n_rows` texts, at present of `length` tokens."""

    def __init__(self, model: torch.nn.Module, n_rows: int):
        embed, config = model.transformer.embed.weight, model.config
        self.model, self.length = model, 0
        # [layers, keys and values, rows, heads, positions, n_embd / heads]
        width = config.n_embd // config.n_head
        self.cache = embed.new_empty(config.n_layer, 2, n_rows, config.n_head, config.n_ctx, width)

    @torch.inference_mode()
    def __call__(self, ids: torch.Tensor) -> torch.Tensor:
        """Read ids [rows, new tokens]. Return the logits of the next tokens, [rows, n_vocab + 3].

        Raises ValueError if the text becomes longer than n_ctx.
        """
        config, (rows, new) = self.model.config, ids.shape
        start, end = self.length, self.length + new
        if end > config.n_ctx:
            raise ValueError(f'{end} tokens, but the model has {config.n_ctx} positions')
        embed = self.model.transformer.embed.weight
        positions = embed[config.first_position + start : config.first_position + end]
        h = (embed[ids] + positions).view(rows * new, -1)
        # A new token sees all earlier tokens, and the new ones up to itself.
        mask = torch.ones(new, end, dtype=torch.bool, device=h.device).tril_(start)
        for block, cache in zip(self.model.transformer.h, self.cache):
            qkv = block.attn.c_attn(h).view(rows, new, 3, config.n_head, -1)
            q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each [rows, heads, new, n_embd / heads]
            cache[0, :, :, start:end] = k
            cache[1, :, :, start:end] = v
            keys, values = cache[:, :, :, :end]
            a = F.scaled_dot_product_attention(q, keys, values, attn_mask=mask)
            a = a.transpose(1, 2).reshape(rows * new, -1)
            h = block.rest(h, block.attn.c_proj(a), None)
        self.length = end
        return h.view(rows, new, -1)[:, -1] @ embed[: config.first_position].t()


def choose(
    logits: torch.Tensor, temperature: float, top_k: int, top_p: float, generator: torch.Generator
) -> torch.Tensor:
    """Draw a token for each row of logits [rows, n_vocab]. Return [rows, 1].

    temperature  divides the logits; 0: always the likeliest token
    top_k        draw from this number of the likeliest tokens; 0: from all
    top_p        draw from the likeliest tokens that together reach this probability
    """
    if temperature == 0:
        return logits.argmax(-1, keepdim=True)
    logits, tokens = logits.double().sort(-1, descending=True)
    # The largest logit becomes 0, so that no temperature, however small, makes it infinite.
    logits = (logits - logits[:, :1]) / temperature
    if top_k:
        logits[:, top_k:] = -torch.inf
    p = logits.softmax(-1)
    # Leave out the tokens before which `top_p` is already reached, but never the first.
    reached = p.cumsum(-1) - p >= top_p
    reached[:, 0] = False
    return tokens.gather(-1, torch.multinomial(p * ~reached, 1, generator=generator))


@torch.inference_mode()
def generate(
    model: torch.nn.Module,
    ids: Sequence[int],
    length: int,
    n_samples: int = 1,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 42,
    special: bool = False,
) -> Iterator[list[int]]:
    """Continue the token ids of a text. Yield the next ids, [n_samples], `length` times.

    special  also draw `_delimiter_`, and `_classify_`, after which a sample is complete: ids that
             follow it mean nothing. When all samples are complete, nothing more is drawn.

    `<unk>` (id 0) and `_start_` are never drawn. When the n_ctx positions of the model are full,
    it continues from their second half: the text before that is forgotten.
    """
    config, device = model.config, model.transformer.embed.weight.device
    n_ctx, classify = config.n_ctx, config.first_position - 1
    never = [0, config.n_vocab] if special else [0, *range(config.n_vocab, config.first_position)]
    complete = torch.zeros(n_samples, dtype=torch.bool, device=device)
    generator = torch.Generator(device).manual_seed(seed)
    text = torch.tensor(ids, device=device)[-n_ctx:].expand(n_samples, -1)
    new, cached = text, CachedModel(model, n_samples)
    for _ in range(length):
        if cached.length + new.shape[1] > n_ctx:
            text = new = text[:, -(n_ctx // 2 + 1) :]
            cached.length = 0
        logits = cached(new)
        logits[:, never] = -torch.inf
        new = choose(logits, temperature, top_k, top_p, generator)
        text = torch.cat([text, new], 1)
        yield new[:, 0].tolist()
        complete |= new[:, 0] == classify
        if complete.all():
            return
