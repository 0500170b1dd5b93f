"""What this program is compared with: other implementations of the same model.

padded        how the best-known PyTorch port of OpenAI's program works: padded rows, the LM head in
              prediction too, attention and norms spelled out, Adam as a loop over the parameters
nanogpt       the way of nanoGPT: PyTorch's own layers, F.scaled_dot_product_attention, all logits
              and F.cross_entropy, torch.optim.AdamW(fused=True); with GPT-1's norms after each sum
transformers  OpenAIGPTDoubleHeadsModel and OpenAIGPTLMHeadModel with torch.optim.AdamW

Those of fine-tuning take a list of stories (`finetune.Story`), those of pre-training an array of
windows [windows, n_ctx]. All of them begin with the weights of `make_weights`.
"""

import startup  # noqa: F401 (before the import of any library)

import math

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

from model_pytorch import DoubleHeadModel, LMModel, init_weights
from precision import autocast

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

    def autocast(self):
        return autocast(self.device, self.precision)


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


class PaddedNorm(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.g = nn.Parameter(torch.ones(n))
        self.b = nn.Parameter(torch.zeros(n))

    def forward(self, x):
        mean = x.mean(-1, keepdim=True)
        variance = (x - mean).pow(2).mean(-1, keepdim=True)
        return self.g * (x - mean) / torch.sqrt(variance + 1e-5) + self.b


class PaddedLinear(nn.Module):
    def __init__(self, nf, nx):
        super().__init__()
        self.w = nn.Parameter(torch.empty(nx, nf))
        self.b = nn.Parameter(torch.zeros(nf))

    def forward(self, x):
        return torch.addmm(self.b, x.view(-1, x.shape[-1]), self.w).view(*x.shape[:-1], -1)


class PaddedAttention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.n_head = config.n_head
        self.c_attn = PaddedLinear(3 * config.n_embd, config.n_embd)
        self.c_proj = PaddedLinear(config.n_embd, config.n_embd)
        self.attn_dropout = nn.Dropout(config.attn_pdrop)
        self.resid_dropout = nn.Dropout(config.resid_pdrop)
        causal = torch.ones(config.n_ctx, config.n_ctx).tril()
        self.register_buffer('causal', causal, persistent=False)

    def forward(self, x):
        q, k, v = (
            part.view(*part.shape[:2], self.n_head, -1).transpose(1, 2)
            for part in self.c_attn(x).split(x.shape[-1], dim=2)
        )
        w = q @ k.transpose(2, 3) / math.sqrt(v.shape[-1])
        w = w * self.causal - 1e9 * (1 - self.causal)
        a = self.attn_dropout(w.softmax(-1)) @ v
        return self.resid_dropout(self.c_proj(a.transpose(1, 2).reshape(x.shape)))


class PaddedMLP(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.c_fc = PaddedLinear(4 * config.n_embd, config.n_embd)
        self.c_proj = PaddedLinear(config.n_embd, 4 * config.n_embd)
        self.resid_dropout = nn.Dropout(config.resid_pdrop)

    def forward(self, x):
        return self.resid_dropout(self.c_proj(gelu(self.c_fc(x))))


class PaddedBlock(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.attn, self.ln_1 = PaddedAttention(config), PaddedNorm(config.n_embd)
        self.mlp, self.ln_2 = PaddedMLP(config), PaddedNorm(config.n_embd)

    def forward(self, x):
        n = self.ln_1(x + self.attn(x))
        return self.ln_2(n + self.mlp(n))


class PaddedTransformer(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.embed = nn.Embedding(config.first_position + config.n_ctx, config.n_embd)
        self.drop = nn.Dropout(config.embd_pdrop)
        self.h = nn.ModuleList(PaddedBlock(config) for _ in range(config.n_layer))

    def forward(self, x):
        h = self.drop(self.embed(x)).sum(2)  # [sequences, n_ctx, 2] -> [sequences, n_ctx, n_embd]
        for block in self.h:
            h = block(h)
        return h


class PaddedHead(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.dropout, self.linear = nn.Dropout(config.clf_pdrop), nn.Linear(config.n_embd, 1)

    def forward(self, h):
        return self.linear(self.dropout(h)).squeeze(-1)


class PaddedModel(nn.Module):
    """Both heads, always. Parameters have the names of this project's model."""

    def __init__(self, config):
        super().__init__()
        self.transformer, self.task_head = PaddedTransformer(config), PaddedHead(config)

    def forward(self, x, clf):
        h = self.transformer(x)
        lm_logits = h[:, :-1].reshape(-1, h.shape[-1]) @ self.transformer.embed.weight.t()
        states = h.view(*clf.shape, *h.shape[1:])
        places = clf[:, :, None, None].expand(-1, -1, 1, h.shape[-1])
        return self.task_head(states.gather(2, places).squeeze(2)), lm_logits


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


class PaddedStories(Other):
    """`padded`."""

    def make_model(self):
        model = PaddedModel(self.config)
        model.load_state_dict(make_weights(DoubleHeadModel, self.config))
        return model

    def make_optimizer(self):
        return LoopAdam(self.model.parameters(), FINE_TUNING_LR)

    def forward(self, stories):
        ids, mask, clf = (t.to(self.device) for t in padded_arrays(stories, self.config))
        positions = self.config.first_position + torch.arange(self.config.n_ctx, device=self.device)
        x = torch.stack([ids, positions.expand_as(ids)], 3).flatten(0, 1)
        with self.autocast():
            return *self.model(x, clf), ids.flatten(0, 1), mask.flatten(0, 1)

    def losses(self, stories):
        """Return the classification and the LM loss of each story; see `finetune.Ours`."""
        clf_logits, lm_logits, ids, mask = self.forward(stories)
        lm_losses = F.cross_entropy(lm_logits.float(), ids[:, 1:].flatten(), reduction='none')
        lm_losses = lm_losses.view(len(ids), -1) * mask[:, 1:]
        lm_losses = lm_losses.sum(1) / mask[:, 1:].sum(1)
        label = torch.tensor([story.label for story in stories], device=self.device)
        clf_losses = F.cross_entropy(clf_logits.float(), label, reduction='none')
        return clf_losses, lm_losses.view(-1, 2).sum(1)

    def train(self, stories):
        self.model.train()
        clf_losses, lm_losses = self.losses(stories)
        (clf_losses.mean() + LM_COEF * lm_losses.mean() / 2).backward()
        self.opt.step()
        self.opt.zero_grad()

    @torch.no_grad()
    def predict(self, stories):
        self.model.eval()
        return self.forward(stories)[0]


def huggingface_config(config):
    """Return the configuration of transformers for a model.

    Its vocabulary is our whole embedding matrix: as in OpenAI's program, the LM logits include the
    rows of the positions.
    """
    from transformers import OpenAIGPTConfig

    names = ('n_embd', 'n_layer', 'n_head', 'embd_pdrop', 'attn_pdrop', 'resid_pdrop')
    return OpenAIGPTConfig(
        vocab_size=config.first_position + config.n_ctx,
        n_positions=config.n_ctx,
        num_labels=1,
        summary_first_dropout=config.clf_pdrop,
        **{name: getattr(config, name) for name in names},
    )


def huggingface_weights(config, weights):
    """Return our transformer's weights under the names that transformers gives them."""
    embed = weights['transformer.embed.weight']
    names = {
        'transformer.tokens_embed.weight': embed,
        'lm_head.weight': embed,
        'transformer.positions_embed.weight': embed[config.first_position :],
    }
    endings = {'w': 'weight', 'g': 'weight', 'b': 'bias'}
    for name, value in weights.items():
        if name.startswith('transformer.h.'):
            layer, _, ending = name.rpartition('.')
            names[f'{layer}.{endings[ending]}'] = value
    return names


class HuggingFaceStories(Other):
    """`transformers`."""

    def make_model(self):
        from transformers import OpenAIGPTDoubleHeadsModel

        weights = make_weights(DoubleHeadModel, self.config)
        names = huggingface_weights(self.config, weights)
        for name in ('weight', 'bias'):
            names[f'multiple_choice_head.summary.{name}'] = weights[f'task_head.linear.{name}']
        model = OpenAIGPTDoubleHeadsModel(huggingface_config(self.config))
        model.load_state_dict(names)
        return model

    def make_optimizer(self):
        return torch.optim.AdamW(self.model.parameters(), lr=FINE_TUNING_LR, weight_decay=0.01)

    def forward(self, stories, with_labels=False):
        """Return the model's output, the LM labels and the labels of the stories."""
        ids, mask, clf = (t.to(self.device) for t in padded_arrays(stories, self.config))
        lm_labels = ids.masked_fill(mask == 0, -100)
        label = torch.tensor([story.label for story in stories], device=self.device)
        labels = dict(labels=lm_labels, mc_labels=label) if with_labels else {}
        with self.autocast():
            return self.model(input_ids=ids, mc_token_ids=clf, **labels), lm_labels, label

    def losses(self, stories):
        """Return the classification and the LM loss of each story; see `finetune.Ours`."""
        out, lm_labels, label = self.forward(stories)
        targets = lm_labels[:, :, 1:]
        logits = out.logits[:, :, :-1].flatten(0, 2)
        lm_losses = F.cross_entropy(logits, targets.flatten(), reduction='none')
        lm_losses = lm_losses.view(targets.shape).sum(2) / (targets >= 0).sum(2)
        return F.cross_entropy(out.mc_logits, label, reduction='none'), lm_losses.sum(1)

    def train(self, stories):
        self.model.train()
        out, *_ = self.forward(stories, with_labels=True)
        (out.mc_loss + LM_COEF * out.loss).backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1)
        self.opt.step()
        self.opt.zero_grad()

    @torch.no_grad()
    def predict(self, stories):
        self.model.eval()
        return self.forward(stories)[0].mc_logits


# ------------------------------------------------------------------------------------- pre-training


class PlainBlock(nn.Module):
    """A layer as in nanoGPT, with GPT-1's norms."""

    def __init__(self, config):
        super().__init__()
        n = config.n_embd
        self.n_head, self.attn_pdrop = config.n_head, config.attn_pdrop
        self.c_attn, self.attn_proj = nn.Linear(n, 3 * n), nn.Linear(n, n)
        self.c_fc, self.mlp_proj = nn.Linear(n, 4 * n), nn.Linear(4 * n, n)
        self.ln_1, self.ln_2 = nn.LayerNorm(n), nn.LayerNorm(n)
        self.drop = nn.Dropout(config.resid_pdrop)

    def attention(self, x):
        rows, length, n = x.shape
        heads = [
            part.view(rows, length, self.n_head, -1).transpose(1, 2)
            for part in self.c_attn(x).split(n, dim=2)
        ]
        p = self.attn_pdrop if self.training else 0
        y = F.scaled_dot_product_attention(*heads, dropout_p=p, is_causal=True)
        return self.attn_proj(y.transpose(1, 2).contiguous().view(rows, length, n))

    def forward(self, x):
        x = self.ln_1(x + self.drop(self.attention(x)))
        m = self.mlp_proj(F.gelu(self.c_fc(x), approximate='tanh'))
        return self.ln_2(x + self.drop(m))


class PlainModel(nn.Module):
    """A GPT as in nanoGPT. As in OpenAI's program, the LM logits include the position rows."""

    def __init__(self, config):
        super().__init__()
        n_rows = config.first_position + config.n_ctx
        self.wte = nn.Embedding(n_rows, config.n_embd)
        self.wpe = nn.Embedding(config.n_ctx, config.n_embd)
        self.drop = nn.Dropout(config.embd_pdrop)
        self.h = nn.ModuleList(PlainBlock(config) for _ in range(config.n_layer))
        self.lm_head = nn.Linear(config.n_embd, n_rows, bias=False)
        self.lm_head.weight = self.wte.weight

    def forward(self, ids):
        """Return the logits of every token, [rows, length, rows of the embedding]."""
        positions = torch.arange(ids.shape[1], device=ids.device)
        x = self.drop(self.wte(ids) + self.wpe(positions))
        for block in self.h:
            x = block(x)
        return self.lm_head(x)


NANOGPT_NAMES = {
    'attn.c_attn.': 'c_attn.',
    'attn.c_proj.': 'attn_proj.',
    'mlp.c_fc.': 'c_fc.',
    'mlp.c_proj.': 'mlp_proj.',
}


def nanogpt_weights(config, weights):
    """Return our transformer's weights under the names of `PlainModel`."""
    names = {}
    for name, value in huggingface_weights(config, weights).items():
        name = name.removeprefix('transformer.')
        for theirs, other in NANOGPT_NAMES.items():
            name = name.replace(theirs, other)
        is_matrix = name.startswith('h.') and value.dim() == 2
        names[name] = value.t() if is_matrix else value  # nn.Linear keeps them transposed
    names['wte.weight'] = names.pop('tokens_embed.weight')
    names['wpe.weight'] = names.pop('positions_embed.weight')
    return names


class Windows(Other):
    """What both have in common. A window's last token predicts nothing."""

    def make_optimizer(self):
        parameters = self.model.parameters()
        return torch.optim.AdamW(parameters, lr=PRE_TRAINING_LR, weight_decay=0.01, fused=True)

    def losses(self, ids):
        """Return the loss of each window."""
        ids = torch.from_numpy(ids).to(self.device)
        with self.autocast():
            logits = self.logits(ids)[:, :-1].flatten(0, 1).float()
            losses = F.cross_entropy(logits, ids[:, 1:].flatten(), reduction='none')
        return losses.view(len(ids), -1).mean(1)

    def update(self, ids):
        self.model.train()
        ids = torch.from_numpy(ids).to(self.device)
        with self.autocast():
            loss = self.mean_loss(ids)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.opt.step()
        self.opt.zero_grad(set_to_none=True)


class NanoGPTWindows(Windows):
    """`nanogpt`."""

    def make_model(self):
        model = PlainModel(self.config)
        model.load_state_dict(nanogpt_weights(self.config, make_weights(LMModel, self.config)))
        return model

    def logits(self, ids):
        return self.model(ids)

    def mean_loss(self, ids):
        """As nanoGPT does it: the targets are the ids after the first."""
        logits = self.model(ids[:, :-1])
        return F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())


class HuggingFaceWindows(Windows):
    """`transformers`."""

    def make_model(self):
        from transformers import OpenAIGPTLMHeadModel

        model = OpenAIGPTLMHeadModel(huggingface_config(self.config))
        model.load_state_dict(huggingface_weights(self.config, make_weights(LMModel, self.config)))
        return model

    def logits(self, ids):
        return self.model(input_ids=ids).logits

    def mean_loss(self, ids):
        return self.model(input_ids=ids, labels=ids).loss
