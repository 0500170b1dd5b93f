"""How many times faster is this than what one would otherwise run?

    python benchmarks/finetune.py                    # full size, all variants
    python benchmarks/finetune.py --variants fp32    # those with "fp32" in their names
    python benchmarks/finetune.py --profile 'shared bf16'    # where the time of a variant goes

On the same batches of made-up stories (lengths as in ROCStories, random weights), it times
training steps (dropout on) and prediction steps, one implementation after another in turn:

(a) this project, with separate and shared rows, in fp32 and bf16
(b) `padded`: how the best-known PyTorch port of OpenAI's program works: padded rows, the LM head
    in prediction too, attention and norms spelled out, Adam as a loop over the parameters
(c) `transformers`: OpenAIGPTDoubleHeadsModel with torch.optim.AdamW, if it is installed

Each of the three runs in a process of its own, which waits while another one has its turn. (a)
tells glibc to keep freed memory, as train.py does; the others do so with --keep_freed_memory.
First, the losses of all without dropout are compared.

`floor` is the time that the matrix products of the linear layers and of the LM head take alone,
on operands of the same shapes, in the same turns. Attention's own products (1 %) are left out.
Before the timing, (b) and (c) do one step, (a) one step with each batch: a batch of a new size
costs it more than the next one of that size, and a run has few sizes. Peak memory is that of a
process that does nothing but four training steps of one variant.
"""

import argparse
import json
import math
import multiprocessing
import os
import statistics
import sys
import time
from types import SimpleNamespace
from typing import NamedTuple

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import gpt1.startup  # noqa: F401 (before the import of any library)

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

from gpt1.ops.batches import Tree, collate
from gpt1.ops.functional import onednn_product, product, uses_onednn
from gpt1.ops.masks import DropoutMasks
from gpt1.ops.tied import rows_a_block
from gpt1.run.parallel import keep_freed_memory
from gpt1.run.precision import Precision, autocast
from loss import JointLoss
from model_pytorch import Config, DoubleHeadModel, init_weights
from opt import OpenAIAdam

LR = 6.25e-5
LM_COEF = 0.5


class Story(NamedTuple):
    """The sequences of a story as token ids, and its label."""

    trunk: np.ndarray
    branches: tuple[np.ndarray, ...]
    label: int


def make_stories(n, config, random_state):
    """Stories of random words: 41 +- 7 tokens, endings 9 +- 3, no sequence longer than n_ctx."""
    start, delimiter, classify = range(config.n_vocab, config.first_position)

    def words(mean, deviation, most):
        size = min(max(1, round(random_state.normal(mean, deviation))), most)
        return random_state.randint(1, config.n_vocab, size=size)

    stories = []
    for _ in range(n):
        story = words(41, 7, config.n_ctx - 23)
        room = config.n_ctx - len(story) - 3
        branches = tuple(np.array([*words(9, 3, room), classify]) for _ in range(2))
        trunk = np.array([start, *story, delimiter])
        stories.append(Story(trunk, branches, random_state.randint(2)))
    return stories


def lay_out(stories, config, share_context):
    """Return a batch of stories."""
    labels = np.array([story.label for story in stories])
    trees = [Tree(story.trunk, story.branches) for story in stories]
    return collate(trees, config.first_position, share_context, labels)


# ---------------------------------------------------------------------------- (a) this project


class Ours:
    def __init__(self, config, device, weights, share_context, precision):
        keep_freed_memory()
        with torch.device(device):
            self.model = DoubleHeadModel(config)
        self.model.load_state_dict(weights)
        self.device, self.config = device, config
        self.share_context, self.precision = share_context, Precision(precision, device)
        self.opt = OpenAIAdam(
            self.model.parameters(), lr=LR, schedule='warmup_constant', warmup=0.1, t_total=1000
        )

    def batch(self, stories, share_context):
        batch = lay_out(stories, self.config, share_context)
        return (batch.pin_memory() if self.device.type == 'cuda' else batch).to(self.device)

    def autocast(self):
        return autocast(self.device, self.precision.name)

    def losses(self, stories):
        """The classification losses [stories], and the LM losses of both sequences [stories]."""
        batch = self.batch(stories, self.share_context)
        with self.autocast():
            logits, lm_losses = self.model(batch)
        clf_losses = F.cross_entropy(logits, batch.target, reduction='none')
        return clf_losses, lm_losses.view(len(stories), -1).sum(1)

    def train(self, stories):
        self.model.train()
        batch = self.batch(stories, self.share_context)
        batch.masks = DropoutMasks(int(torch.randint(2**63 - 1, ())))
        with self.autocast():
            losses = JointLoss(self.model, LM_COEF)(batch)
        self.precision.scale(losses.mean()).backward()
        self.precision.step(self.opt, losses.detach())
        self.opt.zero_grad(set_to_none=True)

    @torch.inference_mode()
    def predict(self, stories):
        self.model.eval()
        batch = self.batch(stories, share_context=True)
        with self.autocast():
            return self.model(batch, lm=False)[0]


# ------------------------------------------------------------------------- (b) the plain padded way


def padded_arrays(stories, config):
    """ids and mask of real tokens [stories, 2, length], the places of `_classify_` [stories, 2]."""
    ids, mask = np.zeros((2, len(stories), 2, config.n_ctx), dtype=np.int64)
    clf = np.zeros((len(stories), 2), dtype=np.int64)
    for i, (trunk, branches, *_) in enumerate(stories):
        for j, branch in enumerate(branches):
            n = len(trunk) + len(branch)
            ids[i, j, :n], mask[i, j, :n], clf[i, j] = [*trunk, *branch], 1, n - 1
    return torch.from_numpy(ids), torch.from_numpy(mask).float(), torch.from_numpy(clf)


def gelu(x):
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * torch.pow(x, 3))))


class PaddedNorm(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.g, self.b = nn.Parameter(torch.ones(n)), nn.Parameter(torch.zeros(n))

    def forward(self, x):
        mean = x.mean(-1, keepdim=True)
        variance = (x - mean).pow(2).mean(-1, keepdim=True)
        return self.g * (x - mean) / torch.sqrt(variance + 1e-5) + self.b


class PaddedLinear(nn.Module):
    def __init__(self, nf, nx):
        super().__init__()
        self.w, self.b = nn.Parameter(torch.empty(nx, nf)), nn.Parameter(torch.zeros(nf))

    def forward(self, x):
        return torch.addmm(self.b, x.view(-1, x.shape[-1]), self.w).view(*x.shape[:-1], -1)


class PaddedAttention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.n_head = config.n_head
        self.c_attn, self.c_proj = (
            PaddedLinear(3 * config.n_embd, config.n_embd),
            PaddedLinear(config.n_embd, config.n_embd),
        )
        self.attn_dropout, self.resid_dropout = (
            nn.Dropout(config.attn_pdrop),
            nn.Dropout(config.resid_pdrop),
        )
        self.register_buffer(
            'causal', torch.ones(config.n_ctx, config.n_ctx).tril(), persistent=False
        )

    def forward(self, x):
        q, k, v = (
            t.view(*t.shape[:2], self.n_head, -1).transpose(1, 2)
            for t in self.c_attn(x).split(x.shape[-1], dim=2)
        )
        w = q @ k.transpose(2, 3) / math.sqrt(v.shape[-1])
        w = w * self.causal - 1e9 * (1 - self.causal)
        a = self.attn_dropout(w.softmax(-1)) @ v
        return self.resid_dropout(self.c_proj(a.transpose(1, 2).reshape(x.shape)))


class PaddedMLP(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.c_fc, self.c_proj = (
            PaddedLinear(4 * config.n_embd, config.n_embd),
            PaddedLinear(config.n_embd, 4 * config.n_embd),
        )
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
        return self.task_head(
            states.gather(2, clf[:, :, None, None].expand(-1, -1, 1, h.shape[-1])).squeeze(2)
        ), lm_logits


class LoopAdam(torch.optim.Optimizer):
    """Adam parameter by parameter, each clipped alone, decay after the step."""

    def __init__(self, params):
        super().__init__(params, dict(lr=LR, b1=0.9, b2=0.999, e=1e-8, l2=0.01, max_grad_norm=1))

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


class Padded:
    def __init__(self, config, device, weights):
        with torch.device(device):
            self.model = PaddedModel(config)
        self.model.load_state_dict(weights)
        self.config, self.device = config, device
        self.opt = LoopAdam(self.model.parameters())

    def forward(self, stories):
        ids, mask, clf = (t.to(self.device) for t in padded_arrays(stories, self.config))
        positions = self.config.first_position + torch.arange(self.config.n_ctx, device=self.device)
        x = torch.stack([ids, positions.expand_as(ids)], 3).flatten(0, 1)
        return *self.model(x, clf), ids.flatten(0, 1), mask.flatten(0, 1)

    def losses(self, stories):
        clf_logits, lm_logits, ids, mask = self.forward(stories)
        lm_losses = (
            F.cross_entropy(lm_logits, ids[:, 1:].flatten(), reduction='none').view(len(ids), -1)
            * mask[:, 1:]
        )
        label = torch.tensor([story.label for story in stories], device=self.device)
        return F.cross_entropy(clf_logits, label, reduction='none'), (
            lm_losses.sum(1) / mask[:, 1:].sum(1)
        ).view(-1, 2).sum(1)

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


# --------------------------------------------------------------------------------- (c) transformers


def huggingface_sizes(config):
    """The sizes and dropout rates for transformers' OpenAIGPTConfig.

    Its vocabulary is our whole embedding matrix: as in OpenAI's program, the LM logits include the
    rows of the positions.
    """
    return {
        'vocab_size': config.first_position + config.n_ctx,
        'n_positions': config.n_ctx,
        **{name: getattr(config, name) for name in ('n_embd', 'n_layer', 'n_head')},
        **{name: getattr(config, name) for name in ('embd_pdrop', 'attn_pdrop', 'resid_pdrop')},
    }


def huggingface_weights(config, weights):
    """Our transformer's weights under the names that transformers gives them."""
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


class HuggingFace:
    def __init__(self, config, device, weights):
        from transformers import OpenAIGPTConfig, OpenAIGPTDoubleHeadsModel

        with torch.device(device):
            self.model = OpenAIGPTDoubleHeadsModel(
                OpenAIGPTConfig(
                    num_labels=1,
                    summary_first_dropout=config.clf_pdrop,
                    **huggingface_sizes(config),
                )
            )
        names = huggingface_weights(config, weights)
        for name in ('weight', 'bias'):
            names[f'multiple_choice_head.summary.{name}'] = weights[f'task_head.linear.{name}']
        self.model.load_state_dict(names)
        self.config, self.device = config, device
        self.opt = torch.optim.AdamW(self.model.parameters(), lr=LR, weight_decay=0.01)

    def inputs(self, stories):
        ids, mask, clf = (t.to(self.device) for t in padded_arrays(stories, self.config))
        return (
            dict(input_ids=ids, mc_token_ids=clf),
            ids.masked_fill(mask == 0, -100),
            torch.tensor([story.label for story in stories], device=self.device),
        )

    def losses(self, stories):
        inputs, lm_labels, label = self.inputs(stories)
        out = self.model(**inputs)
        lm_losses = F.cross_entropy(
            out.logits[:, :, :-1].flatten(0, 2), lm_labels[:, :, 1:].flatten(), reduction='none'
        ).view(len(stories), 2, -1)
        return F.cross_entropy(out.mc_logits, label, reduction='none'), (
            lm_losses.sum(2) / (lm_labels[:, :, 1:] >= 0).sum(2)
        ).sum(1)

    def train(self, stories):
        self.model.train()
        inputs, lm_labels, label = self.inputs(stories)
        out = self.model(**inputs, labels=lm_labels, mc_labels=label)
        (out.mc_loss + LM_COEF * out.loss).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1)
        self.opt.step()
        self.opt.zero_grad()

    @torch.no_grad()
    def predict(self, stories):
        self.model.eval()
        return self.model(**self.inputs(stories)[0]).mc_logits


# ---------------------------------------------------------------------------------------- measuring

VARIANTS = {
    'separate fp32': (Ours, dict(share_context=False, precision='fp32')),
    'shared fp32': (Ours, dict(share_context=True, precision='fp32')),
    'separate bf16': (Ours, dict(share_context=False, precision='bf16')),
    'shared bf16': (Ours, dict(share_context=True, precision='bf16')),
    'padded fp32': (Padded, {}),
    'transformers fp32': (HuggingFace, {}),
}


def product_shapes(kind, stories, share_context, config, device):
    """The matrix products (m, k, n, how many) that a step cannot do without."""
    batch = lay_out(stories, config, share_context)
    n = config.n_embd
    # Without the tokens that rounding up adds: all but the first of a row are predicted.
    predictions = int(batch.lm_weight.count_nonzero())
    tokens = predictions + batch.rows
    if kind == 'predict':
        # Of the last layer: all keys and values, and the rest for the `_classify_` tokens alone
        layer = [(n, 3 * n), (n, n), (n, 4 * n), (4 * n, n)]
        last = [(n, n), (n, n), (n, 4 * n), (4 * n, n)]
        shapes = [(tokens, *shape, config.n_layer - 1) for shape in layer]
        shapes += [(tokens, n, 2 * n, 1)]
        return shapes + [(2 * len(stories), *shape, 1) for shape in last]
    return training_shapes(tokens, predictions, config, device)


def training_shapes(tokens, predictions, config, device):
    """The matrix products (m, k, n, how many) of a training step's linear layers and LM head.

    Those of the LM head are in blocks, as the program computes them.
    """
    n, layers = config.n_embd, config.n_layer
    rows = config.first_position + config.n_ctx
    block = rows_a_block(torch.empty(0, device=device))
    forward = [
        (tokens, n, 3 * n, layers),
        (tokens, n, n, layers),
        (tokens, n, 4 * n, layers),
        (tokens, 4 * n, n, layers),
        (predictions, n, block, rows // block),
        (predictions, n, rows % block, 1),
    ]
    shapes = []
    for m, k, n, count in forward:  # each product has two gradients
        shapes += [(m, k, n, count), (m, n, k, count), (k, m, n, count)]
    return [shape for shape in shapes if all(shape)]


def flop(shapes):
    return sum(2 * m * k * n * count for m, k, n, count in shapes)


class Floor:
    """The time of a step's matrix products alone, by `functional.product`."""

    def __init__(self, shapes, dtype, device):
        self.operands = [
            ([torch.randn(*size, device=device).to(dtype) for size in ((m, k), (k, n))], count)
            for m, k, n, count in shapes
            if count
        ]
        self.flop = flop(shapes)

    def seconds(self, clock):
        total = 0
        for (a, b), count in self.operands:
            repeats = min(count, 2)

            def multiply(a=a, b=b, repeats=repeats):
                for _ in range(repeats):
                    product(a, b)

            total += clock(multiply)[0] / repeats * count
        return total


def peak_bytes(device):
    """The most memory this process has held: device memory on CUDA, else resident memory."""
    if device.type == 'cuda':
        return torch.cuda.max_memory_allocated(device)
    with open('/proc/self/status') as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith('VmHWM'))


def measure_memory(name, config, device, batches, queue):
    """In a process of its own: put the most memory that training steps on these batches need."""
    variant, options = VARIANTS[name]
    model = variant(config, device, make_weights(config), **options)
    for stories in batches:
        model.train(stories)
    queue.put(peak_bytes(device))


class Worker:
    """A process that holds the variants of one implementation and does a step of one on request."""

    def __init__(self, *args, target=None):
        """`target(connection, *args)` answers the requests; by default, `work` does."""
        self.connection, theirs = multiprocessing.Pipe()
        self.process = multiprocessing.get_context('spawn').Process(
            target=target or work, args=(theirs, *args), daemon=True
        )
        self.process.start()
        theirs.close()  # so that a process that dies is noticed

    def ask(self, *request):
        self.connection.send(request)
        return self.connection.recv()

    def end(self):
        self.connection.send(None)
        self.process.join()


def work(connection, variant, names, config, device, batches, keep):
    """Answer the requests of a `Worker`.

    ('losses', name): both losses of each story; (kind, name, number of a batch): the wall and
    processor seconds of the step and, if it is one of ours, the floor's seconds and its FLOP.
    """
    if keep:
        keep_freed_memory()
    weights, models, floors = make_weights(config), {}, {}
    for name in names:
        models[name] = variant(config, device, weights, **VARIANTS[name][1])
        if variant is Ours:  # they share one set of parameters
            models[name].model, models[name].opt = models[names[0]].model, models[names[0]].opt
            share, precision = VARIANTS[name][1].values()
            for kind in ('train', 'predict'):
                shapes = [
                    product_shapes(kind, stories, share or kind == 'predict', config, device)
                    for stories in batches
                ]
                floors[name, kind] = (
                    Floor(
                        shapes[0], torch.bfloat16 if precision == 'bf16' else torch.float32, device
                    ),
                    list(map(flop, shapes)),
                )
    del weights

    def clock(function, *arguments):
        """Wall and processor seconds of a call."""
        if device.type == 'cuda':
            torch.cuda.synchronize()
        start, cpu = time.perf_counter(), time.process_time()
        function(*arguments)
        if device.type == 'cuda':
            torch.cuda.synchronize()
        return time.perf_counter() - start, time.process_time() - cpu

    while request := connection.recv():
        kind, name, *turn = request
        model = models[name]
        if kind == 'losses':
            model.model.eval()
            with torch.no_grad():
                connection.send(torch.stack(model.losses(batches[0])).float().cpu().numpy())
        else:
            answer = clock(getattr(model, kind), batches[turn[0]])
            if floors:
                floor, flops = floors[name, kind]
                answer += (
                    floor.seconds(clock) * flops[turn[0]] / floor.flop,
                    flops[turn[0]],
                )  # batches differ by a few per cent
            connection.send(answer)


def make_weights(config):
    """Random weights, the same each time."""
    torch.manual_seed(0)
    model = DoubleHeadModel(config)
    init_weights(model)
    return model.state_dict()


def profile(name, config, device, batches):
    """Print the slowest operations of a variant's training steps, after one step a batch."""
    variant, options = VARIANTS[name]
    model = variant(config, device, make_weights(config), **options)
    for stories in batches:
        model.train(stories)
    # The profiler's records lie between the arrays of a step, so that the next step finds less
    # room: without this, page faults would fill the table.
    room = torch.ones(1 << 28)
    del room
    with torch.profiler.profile() as record:
        for stories in batches:
            model.train(stories)
    print(f'{name}, {len(batches)} training steps')
    print(
        record.key_averages().table(
            sort_by=f'self_{device.type}_time_total', row_limit=24, max_name_column_width=40
        )
    )


def spread(values):
    """Median, and the range of the middle half."""
    low, median, high = (
        statistics.quantiles(values, n=4, method='inclusive') if len(values) > 1 else values * 3
    )
    return median, low, high


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__.split('\n')[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument('--steps', type=int, default=5, help='timed steps of each variant')
    parser.add_argument('--n_batch', type=int, default=8, help='stories a step')
    parser.add_argument(
        '--variants', default='', help='only those with this in their name, separated by commas'
    )
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--n_layer', type=int, default=12)
    parser.add_argument('--n_vocab', type=int, default=40478)
    parser.add_argument('--n_embd', type=int, default=768)
    parser.add_argument('--n_head', type=int, default=12)
    parser.add_argument('--no_memory', action='store_true', help='do not measure peak memory')
    parser.add_argument(
        '--profile',
        choices=list(VARIANTS),
        metavar='VARIANT',
        help='only profile the training steps of this one',
    )
    parser.add_argument(
        '--keep_freed_memory', action='store_true', help='in the processes of the others too'
    )
    parser.add_argument('--json', help='write the figures to this file')
    args = parser.parse_args(argv)
    device = torch.device(args.device)
    config = Config(
        n_vocab=args.n_vocab, n_ctx=77, n_embd=args.n_embd, n_head=args.n_head, n_layer=args.n_layer
    )
    names = [
        name for name in VARIANTS if any(part.strip() in name for part in args.variants.split(','))
    ]
    try:
        import transformers

        versions = f'transformers {transformers.__version__}'
        transformers.logging.set_verbosity_error()
    except ImportError:
        names, versions = [name for name in names if 'transformers' not in name], 'no transformers'
    batches = [
        make_stories(args.n_batch, config, np.random.RandomState(seed))
        for seed in range(args.steps)
    ]
    if args.profile:
        profile(args.profile, config, device, batches)
        return
    machine = machine_name(device)
    print(
        f'{machine}; torch {torch.__version__}, {versions}; {args.n_batch} stories a step, '
        f'{args.steps} steps'
    )
    products = []
    if device.type == 'cpu':
        shapes = product_shapes('train', batches[0], False, config, device)
        products = print_products(shapes)

    results = {
        name: SimpleNamespace(train=[], predict=[], train_cpu=[], predict_cpu=[], memory=None)
        for name in names
    }
    if not args.no_memory:
        context = multiprocessing.get_context('spawn')
        for name in names:
            queue = context.Queue()
            process = context.Process(
                target=measure_memory, args=(name, config, device, batches[:4], queue)
            )
            process.start()
            results[name].memory = queue.get()
            process.join()

    workers = {
        variant: Worker(
            variant,
            [name for name in names if VARIANTS[name][0] is variant],
            config,
            device,
            batches,
            args.keep_freed_memory,
        )
        for variant in (Ours, Padded, HuggingFace)
    }
    check_losses({name: workers[VARIANTS[name][0]].ask('losses', name) for name in names})
    for name in names:
        for turn in range(len(batches) if VARIANTS[name][0] is Ours else 1):
            for kind in ('train', 'predict'):
                workers[VARIANTS[name][0]].ask(kind, name, turn)
    floors = {}
    for turn in range(len(batches)):
        for kind in ('train', 'predict'):
            for name in names:
                wall, cpu, *floor = workers[VARIANTS[name][0]].ask(kind, name, turn)
                getattr(results[name], kind).append(wall)
                getattr(results[name], f'{kind}_cpu').append(cpu)
                if floor:
                    floors.setdefault((name, kind), []).append(floor)  # its seconds and FLOP
    for worker in workers.values():
        worker.end()

    rows = []
    for kind in ('train', 'predict'):
        print(
            f'\n{kind:19}  median s (middle half)   CPU s  stories/s  x padded  x transf.  GFLOP'
            '  GFLOP/s of mm  x floor' + '  peak GB' * (kind == 'train')
        )
        for name in names:
            result = results[name]
            median, low, high = spread(getattr(result, kind))
            row = dict(
                kind=kind,
                variant=name,
                median_s=median,
                low_s=low,
                high_s=high,
                cpu_s=statistics.median(getattr(result, f'{kind}_cpu')),
                stories_per_s=args.n_batch / median,
                seconds=getattr(result, kind),
            )
            line = f'{name:19}  {median:7.3f} ({low:.3f}-{high:.3f})  {row["cpu_s"]:8.2f}'
            line += f'  {row["stories_per_s"]:9.2f}'
            for other in ('padded fp32', 'transformers fp32'):
                # Turn by turn, so that what else the machine does falls on both.
                ratio = (
                    statistics.median(
                        b / a for a, b in zip(getattr(result, kind), getattr(results[other], kind))
                    )
                    if other in results
                    else math.nan
                )
                row[f'times_{other.split()[0]}'] = ratio
                line += f'  {ratio:8.2f}' + ' ' * (other != 'padded fp32')
            if (name, kind) in floors:
                seconds, flops = zip(*floors[name, kind])
                row.update(
                    gflop=statistics.median(flops) / 1e9,
                    matmul_gflop_per_s=statistics.median(
                        n / 1e9 / s for s, n in floors[name, kind]
                    ),
                    floor_s=statistics.median(seconds),
                    times_floor=statistics.median(
                        a / b for a, b in zip(getattr(result, kind), seconds)
                    ),
                )
                line += f'  {row["gflop"]:5.0f}  {row["matmul_gflop_per_s"]:13.0f}'
                line += f'  {row["times_floor"]:7.2f}'
            else:
                line += ' ' * 31
            if kind == 'train' and result.memory:
                row['peak_bytes'] = result.memory
                line += f'  {result.memory / 1e9:7.2f}'
            print(line)
            rows.append(row)
    if args.json:
        with open(args.json, 'w', encoding='utf-8') as f:
            json.dump(
                dict(
                    machine=machine,
                    torch=torch.__version__,
                    arguments=vars(args),
                    products=products,
                    rows=rows,
                ),
                f,
                indent=1,
            )
            f.write('\n')


def check_losses(losses_of):
    """Check that, without dropout, all variants compute the same losses of every story."""
    reference, worst = next(iter(losses_of.values())), {'fp32': 0, 'bf16': 0}
    for name, losses in losses_of.items():
        precision = name.split()[-1]
        worst[precision] = max(worst[precision], float(abs(losses - reference).max()))
    print(
        'losses without dropout: largest difference',
        ', '.join(f'{value:.1e} in {precision}' for precision, value in worst.items()),
    )
    if worst['fp32'] > 1e-4 or worst['bf16'] > 0.1:
        sys.exit('finetune.py: the variants do not compute the same losses')


def print_products(shapes):
    """Measure the fp32 products of a step by both libraries of a CPU, and print which one is used.

    Returns a dict for each shape. The rates are those of the fastest of three repeats.
    """

    def rate(function, a, b):
        seconds = []
        for _ in range(4):  # the first one prepares
            start = time.perf_counter()
            function(a, b)
            seconds.append(time.perf_counter() - start)
        return 2 * a.numel() * b.shape[1] / 1e9 / min(seconds[1:])

    has_onednn = torch.backends.mkldnn.is_available()
    rows = []
    print(f'{"fp32 products":>22}  number  GFLOP/s: MKL  oneDNN  used')
    for m, k, n, count in shapes:
        a, b = torch.randn(m, k), torch.randn(k, n)
        row = {'m': m, 'k': k, 'n': n, 'count': count, 'mkl': rate(torch.mm, a, b)}
        row['onednn'] = rate(onednn_product, a, b) if has_onednn else math.nan
        row['used'] = 'oneDNN' if uses_onednn(a, b) else 'MKL'
        size = f'{m} x {k} x {n}'
        print(f'{size:>22}  {count:6}  {row["mkl"]:12.0f}  {row["onednn"]:6.0f}  {row["used"]}')
        rows.append(row)
    total = flop(shapes) / 1e9
    for library in ('mkl', 'onednn'):
        seconds = sum(2 * r['m'] * r['k'] * r['n'] * r['count'] / 1e9 / r[library] for r in rows)
        name = {'mkl': 'MKL', 'onednn': 'oneDNN'}[library]
        print(f'all products of a step by {name}: {seconds:.3f} s, {total / seconds:.0f} GFLOP/s')
    return rows


def machine_name(device):
    """The processor and its threads, or the GPU."""
    if device.type == 'cuda':
        return torch.cuda.get_device_name(device)
    return f'{cpu_name()}, {torch.get_num_threads()} threads'


def cpu_name():
    try:
        with open('/proc/cpuinfo') as f:
            return next(line.split(':')[1].strip() for line in f if line.startswith('model name'))
    except (OSError, StopIteration):
        return 'CPU'


if __name__ == '__main__':
    main()
