"""What this program is compared with: other implementations of the same model.

padded        how the best-known PyTorch port of OpenAI's program works: padded rows, the LM head in
              prediction too, attention and norms spelled out, Adam as a loop over the parameters
nanogpt       the way of nanoGPT: PyTorch's own layers, F.scaled_dot_product_attention, all logits
              and F.cross_entropy, torch.optim.AdamW(fused=True); with GPT-1's norms after each sum
transformers  OpenAIGPTDoubleHeadsModel and OpenAIGPTLMHeadModel with torch.optim.AdamW

Those of fine-tuning take a list of stories (`finetune.Story`), those of pre-training an array of
windows [windows, n_ctx]. All of them begin with the weights of `make_weights`.
"""

import gpt1.startup  # noqa: F401 (before the import of any library)

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

from gpt1.run.precision import autocast
from model_pytorch import DoubleHeadModel, LMModel, init_weights

FINE_TUNING_LR, PRE_TRAINING_LR = 6.25e-5, 2.5e-4
LM_COEF = 0.5


def make_weights(kind: type, config) -> dict[str, torch.Tensor]:
    """Return random weights of a `DoubleHeadModel` or an `LMModel`, the same each time."""
    torch.manual_seed(0)
    model = kind(config)
    init_weights(model)
    return model.state_dict()


class Other:
    """A model, its optimizer, and the precision of its forward pass."""

    def __init__(self, config, device, precision='fp32'):
        self.config, self.device, self.precision = config, device, precision
        self.model = self.make_model().to(device)
        self.opt = self.make_optimizer()

    def train(self, item):
        self.model.train()
        with autocast(self.device, self.precision):
            loss = self.mean_loss(item)
        loss.backward()
        if not isinstance(self.opt, LoopAdam):  # which clips for itself
            nn.utils.clip_grad_norm_(self.model.parameters(), 1)
        self.opt.step()
        self.opt.zero_grad(set_to_none=True)


# ----------------------------------------------------------------------------- the plain padded way


def padded_arrays(stories, config):
    """ids and mask of real tokens [stories, 2, length], the places of `_classify_` [stories, 2]."""
    ids, mask = np.zeros((2, len(stories), 2, config.n_ctx), dtype=np.int64)
    clf = np.zeros((len(stories), 2), dtype=np.int64)
    for i, (trunk, branches, *_) in enumerate(stories):
        for j, branch in enumerate(branches):
            n = len(trunk) + len(branch)
            ids[i, j, :n] = [*trunk, *branch]
            mask[i, j, :n] = 1
            clf[i, j] = n - 1
    return torch.from_numpy(ids), torch.from_numpy(mask).float(), torch.from_numpy(clf)


def gelu(x):
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * torch.pow(x, 3))))


class PortNorm(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n))
        self.bias = nn.Parameter(torch.zeros(n))

    def forward(self, x):
        mean = x.mean(-1, keepdim=True)
        variance = (x - mean).pow(2).mean(-1, keepdim=True)
        return self.weight * (x - mean) / torch.sqrt(variance + 1e-5) + self.bias


class PortLinear(nn.Module):
    def __init__(self, nx, nf):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(nx, nf))
        self.bias = nn.Parameter(torch.zeros(nf))

    def forward(self, x):
        y = torch.addmm(self.bias, x.view(-1, x.shape[-1]), self.weight)
        return y.view(*x.shape[:-1], -1)


def port_attention(q, k, v, p, causal):
    w = q @ k.transpose(2, 3) / math.sqrt(v.shape[-1])
    w = w * causal - 1e9 * (1 - causal)
    return F.dropout(w.softmax(-1), p) @ v


def torch_attention(q, k, v, p, causal):
    return F.scaled_dot_product_attention(q, k, v, dropout_p=p, is_causal=True)


class Style(NamedTuple):
    """What a layer is made of."""

    linear: type
    norm: type
    gelu: Callable
    attention: Callable


PORT = Style(PortLinear, PortNorm, gelu, port_attention)
TORCH = Style(nn.Linear, nn.LayerNorm, partial(F.gelu, approximate='tanh'), torch_attention)


class Layer(nn.Module):
    def __init__(self, config, style):
        super().__init__()
        n = config.n_embd
        self.style, self.n_head, self.attn_pdrop = style, config.n_head, config.attn_pdrop
        self.c_attn, self.attn_proj = style.linear(n, 3 * n), style.linear(n, n)
        self.c_fc, self.mlp_proj = style.linear(n, 4 * n), style.linear(4 * n, n)
        self.ln_1, self.ln_2 = style.norm(n), style.norm(n)
        self.drop = nn.Dropout(config.resid_pdrop)
        causal = torch.ones(config.n_ctx, config.n_ctx).tril()
        self.register_buffer('causal', causal, persistent=False)

    def attention(self, x):
        rows, length, n = x.shape
        heads = [
            part.view(rows, length, self.n_head, -1).transpose(1, 2)
            for part in self.c_attn(x).split(n, dim=2)
        ]
        y = self.style.attention(*heads, self.attn_pdrop if self.training else 0, self.causal)
        return self.attn_proj(y.transpose(1, 2).reshape(rows, length, n))

    def forward(self, x):
        x = self.ln_1(x + self.drop(self.attention(x)))
        return self.ln_2(x + self.drop(self.mlp_proj(self.style.gelu(self.c_fc(x)))))


LAYER_NAMES = {'attn.c_attn': 'c_attn', 'attn.c_proj': 'attn_proj'}
LAYER_NAMES |= {'mlp.c_fc': 'c_fc', 'mlp.c_proj': 'mlp_proj'}


def layer_weights(weights, style):
    """Return our layers' weights under the names of `Layer`."""
    names = {}
    for name, value in huggingface_weights(weights).items():
        _, is_layer, rest = name.partition('transformer.h.')
        if is_layer:
            i, _, rest = rest.partition('.')
            part, _, ending = rest.rpartition('.')
            is_transposed = style is TORCH and value.dim() == 2
            names[f'h.{i}.{LAYER_NAMES.get(part, part)}.{ending}'] = (
                value.t() if is_transposed else value
            )
    return names


class PortModel(nn.Module):
    """Both heads, always."""

    def __init__(self, config):
        super().__init__()
        self.embed = nn.Embedding(config.first_position + config.n_ctx, config.n_embd)
        self.drop = nn.Dropout(config.embd_pdrop)
        self.h = nn.ModuleList(Layer(config, PORT) for _ in range(config.n_layer))
        self.clf_dropout = nn.Dropout(config.clf_pdrop)
        self.linear = nn.Linear(config.n_embd, 1)

    def forward(self, x, clf):
        """x [sequences, n_ctx, 2], clf [stories, 2] -> scores and LM logits."""
        h = self.drop(self.embed(x)).sum(2)
        for layer in self.h:
            h = layer(h)
        lm_logits = h[:, :-1].reshape(-1, h.shape[-1]) @ self.embed.weight.t()
        states = h.view(*clf.shape, *h.shape[1:])
        places = clf[:, :, None, None].expand(-1, -1, 1, h.shape[-1])
        states = self.clf_dropout(states.gather(2, places).squeeze(2))
        return self.linear(states).squeeze(-1), lm_logits


class LoopAdam(torch.optim.Optimizer):
    """Adam parameter by parameter, each clipped alone, decay after the step."""

    def __init__(self, params, lr):
        super().__init__(params, dict(lr=lr, b1=0.9, b2=0.999, e=1e-8, l2=0.01, max_grad_norm=1))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            b1, b2 = group['b1'], group['b2']
            for p in group['params']:
                state = self.state[p]
                if not state:
                    state.update(t=0, m=torch.zeros_like(p), v=torch.zeros_like(p))
                state['t'] += 1
                nn.utils.clip_grad_norm_(p, group['max_grad_norm'])
                state['m'].mul_(b1).add_(p.grad, alpha=1 - b1)
                state['v'].mul_(b2).addcmul_(p.grad, p.grad, value=1 - b2)
                lr = group['lr'] * math.sqrt(1 - b2 ** state['t']) / (1 - b1 ** state['t'])
                p.addcdiv_(state['m'], state['v'].sqrt().add_(group['e']), value=-lr)
                if p.dim() > 1:
                    p.add_(p, alpha=-group['lr'] * group['l2'])


# -------------------------------------------------------------------------------------- fine-tuning


class Stories(Other):
    """What both have in common."""

    def losses(self, stories):
        """Return the classification and the LM loss of each story; see `finetune.Ours`."""
        scores, lm_logits, ids, mask = self.forward(stories)
        targets, mask = ids[:, :, 1:], mask[:, :, 1:]
        lm_losses = F.cross_entropy(lm_logits, targets.flatten(), reduction='none')
        lm_losses = (lm_losses.view(mask.shape) * mask).sum(2) / mask.sum(2)
        return F.cross_entropy(scores, self.labels(stories), reduction='none'), lm_losses.sum(1)

    def labels(self, stories):
        return torch.tensor([story.label for story in stories], device=self.device)

    @torch.no_grad()
    def predict(self, stories):
        self.model.eval()
        with autocast(self.device, self.precision):
            return self.forward(stories)[0]


class PaddedStories(Stories):
    """`padded`."""

    def make_model(self):
        model = PortModel(self.config)
        weights = make_weights(DoubleHeadModel, self.config)
        names = {'embed.weight': weights['transformer.embed.weight']}
        for name in ('weight', 'bias'):
            names[f'linear.{name}'] = weights[f'task_head.linear.{name}']
        model.load_state_dict(names | layer_weights(weights, PORT))
        return model

    def make_optimizer(self):
        return LoopAdam(self.model.parameters(), FINE_TUNING_LR)

    def forward(self, stories):
        ids, mask, clf = (t.to(self.device) for t in padded_arrays(stories, self.config))
        positions = self.config.first_position + torch.arange(self.config.n_ctx, device=self.device)
        x = torch.stack([ids, positions.expand_as(ids)], 3).flatten(0, 1)
        return *self.model(x, clf), ids, mask

    def mean_loss(self, stories):
        clf_losses, lm_losses = self.losses(stories)
        return clf_losses.mean() + LM_COEF * lm_losses.mean() / 2


def huggingface_config(config):
    """Return the configuration of transformers for a model.

    Its vocabulary is our whole embedding matrix: as in OpenAI's program, the LM logits include the
    rows of the positions.
    """
    from transformers import OpenAIGPTConfig, logging

    logging.set_verbosity_error()

    names = ('n_embd', 'n_layer', 'n_head', 'embd_pdrop', 'attn_pdrop', 'resid_pdrop')
    return OpenAIGPTConfig(
        vocab_size=config.first_position + config.n_ctx,
        n_positions=config.n_ctx,
        num_labels=1,
        summary_first_dropout=config.clf_pdrop,
        **{name: getattr(config, name) for name in names},
    )


def huggingface_weights(weights):
    """Return our layers' weights under the names that transformers gives them."""
    endings = {'w': 'weight', 'g': 'weight', 'b': 'bias'}
    names = {}
    for name, value in weights.items():
        if name.startswith('transformer.h.'):
            layer, _, ending = name.rpartition('.')
            names[f'{layer}.{endings[ending]}'] = value
    return names


def load_huggingface(model, config, weights, **more):
    """Give a model of transformers our weights, and `more`."""
    embed = weights['transformer.embed.weight']
    names = {
        'transformer.tokens_embed.weight': embed,
        'lm_head.weight': embed,
        'transformer.positions_embed.weight': embed[config.first_position :],
    }
    model.load_state_dict(names | huggingface_weights(weights) | more)
    return model


class HuggingFaceStories(Stories):
    """`transformers`."""

    def make_model(self):
        from transformers import OpenAIGPTDoubleHeadsModel

        weights = make_weights(DoubleHeadModel, self.config)
        head = {
            f'multiple_choice_head.summary.{name}': weights[f'task_head.linear.{name}']
            for name in ('weight', 'bias')
        }
        model = OpenAIGPTDoubleHeadsModel(huggingface_config(self.config))
        return load_huggingface(model, self.config, weights, **head)

    def make_optimizer(self):
        return torch.optim.AdamW(self.model.parameters(), lr=FINE_TUNING_LR, weight_decay=0.01)

    def forward(self, stories):
        ids, mask, clf = (t.to(self.device) for t in padded_arrays(stories, self.config))
        out = self.model(input_ids=ids, mc_token_ids=clf)
        return out.mc_logits, out.logits[:, :, :-1].flatten(0, 2), ids, mask

    def mean_loss(self, stories):
        """As the library computes it from labels."""
        ids, mask, clf = (t.to(self.device) for t in padded_arrays(stories, self.config))
        labels = ids.masked_fill(mask == 0, -100)
        out = self.model(
            input_ids=ids, mc_token_ids=clf, labels=labels, mc_labels=self.labels(stories)
        )
        return out.mc_loss + LM_COEF * out.loss


# ------------------------------------------------------------------------------------- pre-training


class NanoGPT(nn.Module):
    """A GPT as in nanoGPT. As in OpenAI's program, the LM logits include the position rows."""

    def __init__(self, config):
        super().__init__()
        n_rows = config.first_position + config.n_ctx
        self.wte = nn.Embedding(n_rows, config.n_embd)
        self.wpe = nn.Embedding(config.n_ctx, config.n_embd)
        self.drop = nn.Dropout(config.embd_pdrop)
        self.h = nn.ModuleList(Layer(config, TORCH) for _ in range(config.n_layer))
        self.lm_head = nn.Linear(config.n_embd, n_rows, bias=False)
        self.lm_head.weight = self.wte.weight

    def forward(self, ids):
        """Return the logits of every token, [rows, length, rows of the embedding]."""
        positions = torch.arange(ids.shape[1], device=ids.device)
        x = self.drop(self.wte(ids) + self.wpe(positions))
        for layer in self.h:
            x = layer(x)
        return self.lm_head(x)


class Windows(Other):
    """What both have in common. A window's last token predicts nothing."""

    def make_optimizer(self):
        parameters = self.model.parameters()
        return torch.optim.AdamW(parameters, lr=PRE_TRAINING_LR, weight_decay=0.01, fused=True)

    def losses(self, windows):
        """Return the loss of each window."""
        ids = torch.from_numpy(windows).to(self.device)
        with autocast(self.device, self.precision):
            logits = self.logits(ids).flatten(0, 1)
            losses = F.cross_entropy(logits, ids[:, 1:].flatten(), reduction='none')
        return losses.view(len(ids), -1).mean(1)


class NanoGPTWindows(Windows):
    """`nanogpt`."""

    def make_model(self):
        model = NanoGPT(self.config)
        weights = make_weights(LMModel, self.config)
        embed = weights['transformer.embed.weight']
        names = {
            'wte.weight': embed,
            'lm_head.weight': embed,
            'wpe.weight': embed[self.config.first_position :],
        }
        model.load_state_dict(names | layer_weights(weights, TORCH))
        return model

    def logits(self, ids):
        return self.model(ids[:, :-1])

    def mean_loss(self, windows):
        return self.losses(windows).mean()


class HuggingFaceWindows(Windows):
    """`transformers`."""

    def make_model(self):
        from transformers import OpenAIGPTLMHeadModel

        model = OpenAIGPTLMHeadModel(huggingface_config(self.config))
        return load_huggingface(model, self.config, make_weights(LMModel, self.config))

    def logits(self, ids):
        return self.model(input_ids=ids).logits[:, :-1]

    def mean_loss(self, windows):
        """As the library computes it from labels."""
        ids = torch.from_numpy(windows).to(self.device)
        return self.model(input_ids=ids, labels=ids).loss
