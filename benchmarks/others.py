"""What this program is compared with: other implementations of the same model.

padded        how the best-known PyTorch port of OpenAI's program works: padded rows, the LM head in
              prediction too, attention and norms spelled out, Adam one parameter after another
nanogpt       the way of nanoGPT: PyTorch's own layers, F.scaled_dot_product_attention, all logits
              and F.cross_entropy, torch.optim.AdamW(fused=True); with GPT-1's norms after each sum
transformers  OpenAIGPTDoubleHeadsModel and OpenAIGPTLMHeadModel with torch.optim.AdamW

Those of fine-tuning take stories (see `finetune.make_stories`), those of pre-training an array of
windows [windows, n_ctx]. All of them begin with the weights of `make_weights`. As in OpenAI's
program, the LM logits include the rows of the positions.
"""

import gpt1.startup  # noqa: F401 (before the import of any library)

import math

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


def layer_weights(weights, names=()):
    """Return our layers' weights under other names, in which those of `names` replace ours.

    With `names`, the matrices are transposed, as in nn.Linear.
    """
    renamed = {}
    for name, value in weights.items():
        if name.startswith('transformer.h.'):
            layer, _, ending = name.rpartition('.')
            for our, their in names:
                layer = layer.replace(our, their)
            ending = 'bias' if ending == 'b' else 'weight'
            renamed[f'{layer}.{ending}'] = value.t() if names and value.dim() == 2 else value
    return renamed


class Other:
    """A model, its optimizer, and the precision of its forward pass."""

    lr = PRE_TRAINING_LR
    how = {'fused': True}  # or the library's way, or one parameter after another

    def __init__(self, config, device, precision='fp32'):
        self.config, self.device, self.precision = config, device, precision
        self.model = self.make_model().to(device)
        parameters = self.model.parameters()
        self.opt = torch.optim.AdamW(parameters, lr=self.lr, weight_decay=0.01, **self.how)

    def train(self, item):
        self.model.train()
        with autocast(self.device, self.precision):
            loss = self.mean_loss(item)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1)
        self.opt.step()
        self.opt.zero_grad(set_to_none=True)


def port_gelu(x):
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
        self.c_attn, self.attn_proj = nn.Linear(n, 3 * n), nn.Linear(n, n)
        self.c_fc, self.mlp_proj = nn.Linear(n, 4 * n), nn.Linear(4 * n, n)
        self.ln_1, self.ln_2 = norm(n), norm(n)
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


LAYER_NAMES = (
    ('transformer.', ''),
    ('attn.c_attn', 'c_attn'),
    ('attn.c_proj', 'attn_proj'),
    ('mlp.c_fc', 'c_fc'),
    ('mlp.c_proj', 'mlp_proj'),
)


class PortModel(nn.Module):
    """Both heads, always."""

    def __init__(self, config):
        super().__init__()
        self.embed = nn.Embedding(config.first_position + config.n_ctx, config.n_embd)
        self.drop = nn.Dropout(config.embd_pdrop)
        self.h = nn.ModuleList(Layer(config, True) for _ in range(config.n_layer))
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


def load_huggingface(kind, config, weights):
    """Return a model of transformers of a kind with our weights."""
    import transformers

    transformers.logging.set_verbosity_error()
    names = ('n_embd', 'n_layer', 'n_head', 'embd_pdrop', 'attn_pdrop', 'resid_pdrop')
    their_config = transformers.OpenAIGPTConfig(
        vocab_size=config.first_position + config.n_ctx,  # our whole embedding matrix
        n_positions=config.n_ctx,
        num_labels=1,
        summary_first_dropout=config.clf_pdrop,
        **{name: getattr(config, name) for name in names},
    )
    model = getattr(transformers, kind)(their_config)
    embed, names = weights['transformer.embed.weight'], layer_weights(weights)
    names['transformer.tokens_embed.weight'] = names['lm_head.weight'] = embed
    names['transformer.positions_embed.weight'] = embed[config.first_position :]
    for name in ('weight', 'bias') if kind == 'OpenAIGPTDoubleHeadsModel' else ():
        names[f'multiple_choice_head.summary.{name}'] = weights[f'task_head.linear.{name}']
    model.load_state_dict(names)
    return model


class Stories(Other):
    """What both have in common. `scores_and_logits` is a forward pass."""

    lr = FINE_TUNING_LR
    how = {}

    def arrays(self, stories):
        """ids and mask of real tokens [stories, 2, length], places of `_classify_`, labels."""
        trees, labels = stories
        ids, mask = np.zeros((2, len(trees), 2, self.config.n_ctx), dtype=np.int64)
        clf = np.zeros((len(trees), 2), dtype=np.int64)
        for i, (trunk, branches) in enumerate(trees):
            for j, branch in enumerate(branches):
                n = len(trunk) + len(branch)
                ids[i, j, :n] = [*trunk, *branch]
                mask[i, j, :n] = 1
                clf[i, j] = n - 1
        return [torch.from_numpy(array).to(self.device) for array in (ids, mask, clf, labels)]

    def losses(self, stories):
        """See `finetune.Ours`."""
        ids, mask, clf, labels = self.arrays(stories)
        scores, lm_logits = self.scores_and_logits(ids, clf)
        targets, mask = ids[:, :, 1:], mask[:, :, 1:]
        lm_losses = F.cross_entropy(lm_logits, targets.flatten(), reduction='none')
        lm_losses = (lm_losses.view(mask.shape) * mask).sum(2) / mask.sum(2)
        clf_losses = F.cross_entropy(scores, labels, reduction='none')
        return torch.stack([clf_losses, lm_losses.sum(1)])

    def mean_loss(self, stories):
        clf_losses, lm_losses = self.losses(stories)
        return clf_losses.mean() + LM_COEF * lm_losses.mean() / 2

    @torch.no_grad()
    def predict(self, stories):
        self.model.eval()
        ids, _, clf, _ = self.arrays(stories)
        with autocast(self.device, self.precision):
            return self.scores_and_logits(ids, clf)[0]


class PaddedStories(Stories):
    """`padded`."""

    how = {'foreach': False}

    def make_model(self):
        model = PortModel(self.config)
        weights = make_weights(DoubleHeadModel, self.config)
        names = {'embed.weight': weights['transformer.embed.weight']}
        names['linear.weight'] = weights['task_head.linear.weight']
        names['linear.bias'] = weights['task_head.linear.bias']
        model.load_state_dict(names | layer_weights(weights, LAYER_NAMES))
        return model

    def scores_and_logits(self, ids, clf):
        positions = self.config.first_position + torch.arange(self.config.n_ctx, device=self.device)
        return self.model(torch.stack([ids, positions.expand_as(ids)], 3).flatten(0, 1), clf)


class HuggingFaceStories(Stories):
    """`transformers`."""

    def make_model(self):
        weights = make_weights(DoubleHeadModel, self.config)
        return load_huggingface('OpenAIGPTDoubleHeadsModel', self.config, weights)

    def scores_and_logits(self, ids, clf):
        out = self.model(input_ids=ids, mc_token_ids=clf)
        return out.mc_logits, out.logits[:, :, :-1].flatten(0, 2)


class NanoGPT(nn.Module):
    """A GPT as in nanoGPT."""

    def __init__(self, config):
        super().__init__()
        n_rows = config.first_position + config.n_ctx
        self.wte = nn.Embedding(n_rows, config.n_embd)
        self.wpe = nn.Embedding(config.n_ctx, config.n_embd)
        self.drop = nn.Dropout(config.embd_pdrop)
        self.h = nn.ModuleList(Layer(config, False) for _ in range(config.n_layer))
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

    def losses(self, windows):
        """Return the loss of each window."""
        ids = torch.from_numpy(windows).to(self.device)
        with autocast(self.device, self.precision):
            logits = self.logits(ids).flatten(0, 1)
            losses = F.cross_entropy(logits, ids[:, 1:].flatten(), reduction='none')
        return losses.view(len(ids), -1).mean(1)

    def mean_loss(self, windows):
        return self.losses(windows).mean()


class NanoGPTWindows(Windows):
    """`nanogpt`."""

    def make_model(self):
        model = NanoGPT(self.config)
        weights = make_weights(LMModel, self.config)
        embed = weights['transformer.embed.weight']
        names = {'wte.weight': embed, 'lm_head.weight': embed}
        names['wpe.weight'] = embed[self.config.first_position :]
        model.load_state_dict(names | layer_weights(weights, LAYER_NAMES))
        return model

    def logits(self, ids):
        return self.model(ids[:, :-1])


class HuggingFaceWindows(Windows):
    """`transformers`."""

    def make_model(self):
        weights = make_weights(LMModel, self.config)
        return load_huggingface('OpenAIGPTLMHeadModel', self.config, weights)

    def logits(self, ids):
        return self.model(input_ids=ids).logits[:, :-1]
