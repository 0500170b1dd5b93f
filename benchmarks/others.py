"""What this program is compared with: other implementations of the same model.

padded        how the best-known PyTorch port of OpenAI's program works: padded rows, the LM head in
              prediction too, attention and norms spelled out, Adam one parameter after another
nanogpt       the way of nanoGPT: PyTorch's own layers, F.scaled_dot_product_attention, all logits
              and F.cross_entropy, torch.optim.AdamW(fused=True); with GPT-1's norms after each sum
transformers  OpenAIGPTDoubleHeadsModel and OpenAIGPTLMHeadModel with torch.optim.AdamW

All of them begin with the weights of `make_model`. As in OpenAI's program, the LM logits include
the rows of the positions. A model takes ids [rows, length] and, in fine-tuning, the places `clf`
[stories, 2] of the `_classify_` tokens. It returns the logits of all tokens but each row's first,
and the scores [stories, 2].
"""

import gpt1.startup  # noqa: F401 (before the import of any library)

import math

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

from gpt1.run.precision import autocast
from gpt1.settings import CONFIG_NAMES
from model_pytorch import DoubleHeadModel, LMModel, init_weights

FINE_TUNING_LR, PRE_TRAINING_LR = 6.25e-5, 2.5e-4
LM_COEF = 0.5


def make_model(kind: type, config) -> nn.Module:
    """Return a `DoubleHeadModel` or an `LMModel` with random weights, the same each time."""
    torch.manual_seed(0)
    model = kind(config)
    init_weights(model)
    return model


class PortNorm(nn.LayerNorm):
    def forward(self, x):
        mean = x.mean(-1, keepdim=True)
        variance = (x - mean).pow(2).mean(-1, keepdim=True)
        return self.weight * (x - mean) / torch.sqrt(variance + self.eps) + self.bias


def port_gelu(x):
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def port_attention(q, k, v, p, causal):
    w = q @ k.transpose(2, 3) / math.sqrt(v.shape[-1])
    w = w * causal - 1e9 * (1 - causal)
    return F.dropout(w.softmax(-1), p) @ v


def torch_attention(q, k, v, p, causal):
    return F.scaled_dot_product_attention(q, k, v, dropout_p=p, is_causal=True)


class Layer(nn.Module):
    """A layer of `padded`, with all of it spelled out, or of `nanogpt`."""

    def __init__(self, config, is_port):
        super().__init__()
        n = config.n_embd
        norm = PortNorm if is_port else nn.LayerNorm
        self.gelu = port_gelu if is_port else nn.GELU('tanh')
        self.attend = port_attention if is_port else torch_attention
        self.n_head, self.attn_pdrop = config.n_head, config.attn_pdrop
        self.c_attn, self.attn_proj, self.ln_1 = nn.Linear(n, 3 * n), nn.Linear(n, n), norm(n)
        self.c_fc, self.mlp_proj, self.ln_2 = nn.Linear(n, 4 * n), nn.Linear(4 * n, n), norm(n)
        self.drop = nn.Dropout(config.resid_pdrop)
        causal = torch.ones(config.n_ctx, config.n_ctx).tril()
        self.register_buffer('causal', causal, persistent=False)

    def forward(self, x):
        rows, length, n = x.shape
        heads = self.c_attn(x).view(rows, length, 3, self.n_head, -1).permute(2, 0, 3, 1, 4)
        y = self.attend(*heads, self.attn_pdrop if self.training else 0, self.causal)
        y = self.attn_proj(y.transpose(1, 2).reshape(rows, length, n))
        x = self.ln_1(x + self.drop(y))
        return self.ln_2(x + self.drop(self.mlp_proj(self.gelu(self.c_fc(x)))))


class Model(nn.Module):
    """The model of `padded`, which always has both heads, or of `nanogpt`.

    Its parameters have the order of `ours`, whose matrices are transposed.
    """

    def __init__(self, config, ours, is_port):
        super().__init__()
        n_rows = config.first_position + config.n_ctx
        self.embed = nn.Embedding(n_rows, config.n_embd)
        self.h = nn.ModuleList(Layer(config, is_port) for _ in range(config.n_layer))
        self.linear = nn.Linear(config.n_embd, 1) if is_port else None
        self.drop, self.clf_drop = nn.Dropout(config.embd_pdrop), nn.Dropout(config.clf_pdrop)
        positions = torch.arange(config.first_position, n_rows)
        self.register_buffer('positions', positions, persistent=False)
        for p, (name, value) in zip(self.parameters(), ours.named_parameters(), strict=True):
            p.data.copy_(value.t() if name.endswith('.w') else value)

    def forward(self, ids, clf=None):
        h = self.drop(self.embed(ids) + self.embed(self.positions))
        for layer in self.h:
            h = layer(h)
        logits = h[:, :-1] @ self.embed.weight.t()
        if clf is None:
            return logits, None
        states = h[torch.arange(len(h), device=h.device), clf.flatten()]
        return logits, self.linear(self.clf_drop(states)).view(clf.shape)


class HuggingFace(nn.Module):
    """The model of `transformers`. Its parameters have the order of `ours`."""

    def __init__(self, config, ours, kind):
        import transformers

        super().__init__()
        transformers.logging.set_verbosity_error()
        their_config = transformers.OpenAIGPTConfig(
            vocab_size=config.first_position + config.n_ctx,  # our whole embedding matrix
            num_labels=1,
            **{their: getattr(config, our) for their, our in CONFIG_NAMES.items()},
        )
        self.model = getattr(transformers, kind)(their_config)
        embed, *more = ours.parameters()
        weights = [embed, embed[config.first_position :], *more]
        for p, value in zip(self.parameters(), weights, strict=True):
            p.data.copy_(value)

    def forward(self, ids, clf=None):
        if clf is None:
            return self.model(input_ids=ids).logits[:, :-1], None
        out = self.model(input_ids=ids.view(*clf.shape, -1), mc_token_ids=clf)
        return out.logits.flatten(0, 1)[:, :-1], out.mc_logits


class Other:
    """An implementation, its optimizer, and the precision of its forward pass."""

    def __init__(self, name, config, device, precision='fp32'):
        self.config, self.device, self.precision = config, device, precision
        ours = make_model(self.kind, config)
        if name == 'transformers':
            self.model = HuggingFace(config, ours, self.their_kind)
        else:
            self.model = Model(config, ours, name == 'padded')
        parameters = self.model.to(device).parameters()
        how = {'foreach': False} if name == 'padded' else self.how
        self.opt = torch.optim.AdamW(parameters, lr=self.lr, weight_decay=0.01, **how)

    def token_losses(self, ids, clf=None):
        """Return the loss of each token but the first of a row, and the scores."""
        with autocast(self.device, self.precision):
            logits, scores = self.model(ids, clf)
            targets = ids[:, 1:].flatten()
            losses = F.cross_entropy(logits.flatten(0, 1), targets, reduction='none')
        return losses.view(len(ids), -1), scores

    def train(self, item):
        self.model.train()
        self.mean_loss(item).backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1)
        self.opt.step()
        self.opt.zero_grad(set_to_none=True)


class Stories(Other):
    """Fine-tuning on stories, see `finetune.make_stories`."""

    kind, their_kind = DoubleHeadModel, 'OpenAIGPTDoubleHeadsModel'
    lr, how = FINE_TUNING_LR, {}

    def arrays(self, stories):
        """ids and mask of real tokens [2 * stories, n_ctx], places of `_classify_`, labels."""
        trees, labels = stories
        sequences = [np.append(tree.trunk, branch) for tree in trees for branch in tree.branches]
        ids, mask = np.zeros((2, len(sequences), self.config.n_ctx), dtype=np.int64)
        for i, sequence in enumerate(sequences):
            ids[i, : len(sequence)] = sequence
            mask[i, : len(sequence)] = 1
        arrays = ids, mask, mask.sum(1).reshape(-1, 2) - 1, labels
        return [torch.from_numpy(array).to(self.device) for array in arrays]

    def losses(self, stories):
        """See `finetune.Ours`."""
        ids, mask, clf, labels = self.arrays(stories)
        losses, scores = self.token_losses(ids, clf)
        lm_losses = (losses * mask[:, 1:]).sum(1) / mask[:, 1:].sum(1)
        clf_losses = F.cross_entropy(scores.float(), labels, reduction='none')
        return torch.stack([clf_losses, lm_losses.view(-1, 2).sum(1)])

    def mean_loss(self, stories):
        clf_losses, lm_losses = self.losses(stories)
        return clf_losses.mean() + LM_COEF * lm_losses.mean() / 2

    @torch.no_grad()
    def predict(self, stories):
        self.model.eval()
        ids, _, clf, _ = self.arrays(stories)
        with autocast(self.device, self.precision):
            return self.model(ids, clf)[1]


class Windows(Other):
    """Pre-training on windows [windows, n_ctx]. A window's last token predicts nothing."""

    kind, their_kind = LMModel, 'OpenAIGPTLMHeadModel'
    lr, how = PRE_TRAINING_LR, {'fused': True}

    def losses(self, windows):
        """Return the loss of each window."""
        return self.token_losses(torch.from_numpy(windows).to(self.device))[0].mean(1)

    def mean_loss(self, windows):
        return self.losses(windows).mean()
