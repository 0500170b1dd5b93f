"""GPT-1 written as its specification: padded, slow and obvious. The tests compare with it.

It shares no code with the model. It takes the parameters by their names in the model's state
dict. All sequences of a batch are padded to `n_ctx` tokens. A sequence is a trunk and one of its
branches, see `batches.Tree`.
"""

import math

import numpy as np
import torch

ACTIVATIONS = {
    'gelu': lambda x: 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    'relu': lambda x: x.clamp(min=0),
    'swish': lambda x: x * torch.sigmoid(x),
}


def layer_norm(x, g, b):
    mean = x.mean(-1, keepdim=True)
    variance = ((x - mean) ** 2).mean(-1, keepdim=True)
    return g * (x - mean) / torch.sqrt(variance + 1e-5) + b


def attention(x, w, config):
    """Causal self-attention, one head after another. `w` holds the parameters of the layer."""
    qkv = x @ w['attn.c_attn.w'] + w['attn.c_attn.b']
    queries, keys, values = qkv.split(config.n_embd, dim=-1)
    size = config.n_embd // config.n_head
    visible = torch.ones(config.n_ctx, config.n_ctx).tril().bool()
    heads = []
    for head in range(config.n_head):
        q, k, v = (part.split(size, dim=-1)[head] for part in (queries, keys, values))
        scores = q @ k.transpose(1, 2) / math.sqrt(size)
        heads.append(scores.masked_fill(~visible, -math.inf).softmax(-1) @ v)
    return torch.cat(heads, dim=-1) @ w['attn.c_proj.w'] + w['attn.c_proj.b']


def mlp(x, w, config):
    a = ACTIVATIONS[config.afn](x @ w['mlp.c_fc.w'] + w['mlp.c_fc.b'])
    return a @ w['mlp.c_proj.w'] + w['mlp.c_proj.b']


def padded_sequences(trees, n_ctx):
    """Return the ids of all sequences, [sequences, n_ctx], and their lengths."""
    sequences = [np.append(tree.trunk, branch) for tree in trees for branch in tree.branches]
    ids = torch.zeros(len(sequences), n_ctx, dtype=torch.int64)
    for row, sequence in zip(ids, sequences):
        row[: len(sequence)] = torch.from_numpy(sequence)
    return ids, [len(sequence) for sequence in sequences]


def plain_model(parameters, config, layout, trees):
    """Return the task's logits and the LM losses of the sequences.

    Both are lists with one entry for each example: [n_out] or [choices], and [sequences].
    `config.n_ctx` is the padded length. There is no dropout: the recordings of OpenAI's program
    have it.
    """
    ids, lengths = padded_sequences(trees, config.n_ctx)
    we = parameters['transformer.embed.weight']
    positions = config.n_vocab + 3 + torch.arange(config.n_ctx)
    h = we[ids] + we[positions]
    for layer in range(config.n_layer):
        prefix = f'transformer.h.{layer}.'
        w = {n.removeprefix(prefix): p for n, p in parameters.items() if n.startswith(prefix)}
        n = layer_norm(h + attention(h, w, config), w['ln_1.g'], w['ln_1.b'])
        h = layer_norm(n + mlp(n, w, config), w['ln_2.g'], w['ln_2.b'])

    log_probabilities = (h @ we.t()).log_softmax(-1)
    lm_losses, states = [], []
    for i, length in enumerate(lengths):
        # The state of a token predicts the next token.
        losses = [-log_probabilities[i, t - 1, ids[i, t]] for t in range(1, length)]
        lm_losses.append(sum(losses) / len(losses))
        states.append(h[i, length - 1])  # at `_classify_`, the last token

    n_sequences = [len(tree.branches) for tree in trees]
    lm_losses = torch.stack(lm_losses).split(n_sequences)
    states = torch.stack(states).split(n_sequences)
    return [task_head(example, parameters, layout) for example in states], lm_losses


def task_head(states, parameters, layout):
    """Return the logits of one example from the states of its sequences, [sequences, n_embd]."""
    weight, bias = parameters['task_head.linear.weight'], parameters['task_head.linear.bias']
    if layout == 'choices':
        return torch.stack([weight[0] @ state + bias[0] for state in states])
    if layout == 'similarity':
        first, second = states
        return weight @ (first + second) + bias
    (state,) = states
    return weight @ state + bias


def joint_losses(logits, lm_losses, targets, lm_coef):
    """Return the loss of each example. A target is a class, probabilities, or a real number."""
    losses = []
    for z, lm, target in zip(logits, lm_losses, targets):
        if not target.is_floating_point():
            loss = -z.log_softmax(0)[target]
        elif target.dim() == 1:
            loss = -(target * z.log_softmax(0)).sum()
        else:
            loss = (z[0] - target) ** 2
        losses.append(loss + lm_coef * lm.mean())
    return torch.stack(losses)
