"""The model and its losses compared with `plain_model`, which reads like the specification."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_model import PlainMasks, joint_losses, plain_model
from tiny_models import CONFIG

from gpt1.ops.batches import Tree, build_tree, collate, collate_windows
from gpt1.ops.masks import DropoutMasks, unpack
from loss import JointLoss
from model_pytorch import (
    DoubleHeadModel,
    LMModel,
    init_weights,
    one_score_a_choice,
    special_rows,
)

RATES = {'embd_pdrop': 0.3, 'attn_pdrop': 0.2, 'resid_pdrop': 0.1, 'clf_pdrop': 0.4}
WITH_DROPOUT = dataclasses.replace(CONFIG, **RATES)
LM_COEF = 0.5


def random_trees(lengths, layout, seed=0):
    """lengths: the numbers of tokens of the texts of each example. Of choices, one is context."""
    random = np.random.RandomState(seed)
    return [
        build_tree([random.randint(CONFIG.n_vocab, size=n) for n in row], layout, 1, CONFIG.n_vocab)
        for row in lengths
    ]


PAIRS = [(9, 8), (1, 4), (0, 3), (5, 0)]
CHOICES = [(9, 3, 5), (4, 6, 2), (12, 1, 7), (0, 0, 3)]
UNEQUAL_CHOICES = [(9, 3, 5), (4, 6), (7, 1, 7, 2), (0, 2, 3)]
CLASSES = np.array([2, 0, 1, 1])
CHOSEN = np.array([1, 0, 1, 0])
PROBABILITIES = np.random.RandomState(0).dirichlet(np.ones(6), 4)
NUMBERS = np.array([0.5, -1.0, 2.0, 0.0])
# Each kind of task: layout, outputs of the linear layer, lengths of the texts, targets.
TASKS = {
    'text': ('text', 3, [(9,), (1,), (14,), (0,)], CLASSES),
    'pair': ('pair', 3, PAIRS, CLASSES),
    'similarity': ('similarity', 3, PAIRS, CLASSES),
    'soft labels': ('similarity', 6, PAIRS, PROBABILITIES),
    'regression': ('text', 1, [(9,), (1,), (14,), (0,)], NUMBERS),
    'two choices': ('choices', 1, CHOICES, CHOSEN),
    'unequal choices': ('choices', 1, UNEQUAL_CHOICES, np.array([1, 0, 2, 1])),
}
TREES = random_trees(CHOICES, 'choices')


def make_model(config=CONFIG, layout='choices', n_out=1, seed=0, dtype=torch.float64):
    """A model in which no gain or bias is 1 or 0, where a mistake would not show."""
    torch.manual_seed(seed)
    model = DoubleHeadModel(config, layout, n_out)
    init_weights(model)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn(p.shape))
    return model.to(dtype)


def make_batch(trees=TREES, share_context=False, target=CHOSEN):
    return collate(trees, CONFIG.first_position, share_context, target)


def losses_and_gradients(model, batch, lm_coef=LM_COEF):
    """Return the loss of each example and the gradients of their sum by parameter."""
    losses = JointLoss(model, lm_coef)(batch)
    return losses.detach(), gradients_of(losses, model)


def plain_losses_and_gradients(model, layout, trees, target, lm_coef=LM_COEF, masks=None):
    parameters = dict(model.named_parameters())
    logits, lm_losses = plain_model(parameters, model.config, layout, trees, masks)
    losses = joint_losses(logits, lm_losses, torch.from_numpy(target), lm_coef)
    return losses.detach(), gradients_of(losses, model)


def gradients_of(losses, model):
    names, parameters = zip(*model.named_parameters())
    gradients = torch.autograd.grad(losses.sum(), parameters, materialize_grads=True)
    return dict(zip(names, gradients))


def assert_same(result, expected, tolerance=1e-10):
    torch.testing.assert_close(result[0], expected[0], rtol=0, atol=tolerance)
    for name, gradient in expected[1].items():
        torch.testing.assert_close(
            result[1][name], gradient, rtol=0, atol=tolerance, msg=lambda m, n=name: f'{n}: {m}'
        )


def test_the_branches_of_300_choices():
    """They are more than fit a byte."""
    model, trees = make_model(), random_trees([(2, *[5] * 300)], 'choices')
    target = np.array([299])
    separate = losses_and_gradients(model, make_batch(trees, False, target))
    assert_same(losses_and_gradients(model, make_batch(trees, True, target)), separate)


@pytest.mark.parametrize('share_context', [False, True])
@pytest.mark.parametrize('task', TASKS)
def test_losses_and_gradients_of_each_task(task, share_context):
    layout, n_out, lengths, target = TASKS[task]
    model = make_model(layout=layout, n_out=n_out)
    trees = random_trees(lengths, layout)
    result = losses_and_gradients(model, make_batch(trees, share_context, target))
    assert_same(result, plain_losses_and_gradients(model, layout, trees, target))


@pytest.mark.parametrize('share_context', [False, True])
@pytest.mark.parametrize('afn', ['relu', 'swish'])
def test_losses_and_gradients_of_other_activations(afn, share_context):
    model = make_model(dataclasses.replace(CONFIG, afn=afn))
    result = losses_and_gradients(model, make_batch(share_context=share_context))
    assert_same(result, plain_losses_and_gradients(model, 'choices', TREES, CHOSEN))


texts_of_choices = st.lists(
    st.lists(st.integers(0, 5), min_size=2, max_size=4), min_size=1, max_size=4
)


@settings(max_examples=15, deadline=None)
@given(texts_of_choices, st.integers(0, 100))
def test_shared_and_separate_rows_give_the_same(lengths, seed):
    model = make_model()
    trees, target = random_trees(lengths, 'choices', seed), np.zeros(len(lengths), np.int64)
    separate = losses_and_gradients(model, make_batch(trees, False, target))
    assert_same(losses_and_gradients(model, make_batch(trees, True, target)), separate)


def test_lm_model_is_the_mean_over_the_tokens_after_the_first():
    torch.manual_seed(0)
    model = LMModel(CONFIG).double()
    init_weights(model, std=0.2)
    ids = np.random.RandomState(0).randint(CONFIG.n_vocab, size=(3, CONFIG.n_ctx))
    trees = [Tree(row[:-1], (row[-1:],)) for row in ids]
    parameters = dict(model.named_parameters())
    parameters['task_head.linear.weight'] = torch.zeros(1, CONFIG.n_embd, dtype=torch.float64)
    parameters['task_head.linear.bias'] = torch.zeros(1, dtype=torch.float64)
    _, expected = plain_model(parameters, CONFIG, 'text', trees)
    losses = model(collate_windows(ids, CONFIG.first_position))
    torch.testing.assert_close(losses, torch.cat(expected), rtol=0, atol=1e-10)


class RecordedMasks(DropoutMasks):
    """Keeps the masks it draws, unpacked."""

    def __init__(self, seed):
        super().__init__(seed)
        self.drawn = []

    def keep(self, kind, shape, p):
        bits = super().keep(kind, shape, p)
        self.drawn.append((kind, unpack(bits, shape[-1])))
        return bits


def padded_masks(drawn, batch, config):
    """Convert the masks of a batch with separate rows to those of `plain_model`.

    The model draws them flat, for packed tokens and for rows that are padded to `batch.length`.
    """
    n = min(batch.length, config.n_ctx)
    row, place = batch.slots // batch.length, batch.slots % batch.length
    is_inside = place < config.n_ctx

    def of_states(mask):
        padded = torch.ones(batch.rows, config.n_ctx, config.n_embd)
        mask = mask.view(-1, config.n_embd).to(padded.dtype)
        padded[row[is_inside], place[is_inside]] = mask[is_inside]
        return padded

    def of_probabilities(mask):
        padded = torch.ones(batch.rows, config.n_head, config.n_ctx, config.n_ctx)
        mask = mask.view(batch.rows, config.n_head, batch.length, batch.length)
        padded[:, :, :n, :n] = mask[:, :, :n, :n].to(padded.dtype)
        return padded

    kinds = [kind for kind, _ in drawn]
    masks = [mask for _, mask in drawn]
    # The order of the original
    assert kinds == ['embd', *['attn', 'resid', 'resid'] * config.n_layer, 'clf']
    return PlainMasks(
        embedding=masks[0],
        attention=[of_probabilities(mask) for mask in masks[1:-1:3]],
        attention_output=[of_states(mask) for mask in masks[2:-1:3]],
        mlp_output=[of_states(mask) for mask in masks[3:-1:3]],
        classifier=masks[-1].view(-1, config.n_embd),
    )


@pytest.mark.parametrize('task', TASKS)
def test_losses_and_gradients_with_the_same_dropout_masks(task):
    layout, n_out, lengths, target = TASKS[task]
    model = make_model(WITH_DROPOUT, layout, n_out).train()
    trees = random_trees(lengths, layout)
    batch = make_batch(trees, target=target)
    batch.masks = RecordedMasks(seed=1)
    result = losses_and_gradients(model, batch)
    masks = padded_masks(batch.masks.drawn, batch, model.config)
    expected = plain_losses_and_gradients(model, layout, trees, target, masks=masks)
    assert_same(result, expected)
    without_dropout = plain_losses_and_gradients(model, layout, trees, target)
    assert (expected[0] - without_dropout[0]).abs().min() > 1e-3


@pytest.mark.parametrize('share_context', [False, True])
def test_the_plain_path_gives_the_same_losses_and_gradients(monkeypatch, share_context):
    model = make_model(WITH_DROPOUT).train()
    results = []
    for path in ('cpu', 'plain'):
        monkeypatch.setenv('GPT1_PATH', path)
        batch = make_batch(share_context=share_context)
        batch.masks = DropoutMasks(seed=1)
        results.append(losses_and_gradients(model, batch))
    assert_same(*results)


@pytest.mark.parametrize('share_context', [False, True])
def test_the_cuda_path_gives_the_same_without_dropout(monkeypatch, share_context):
    model = make_model()
    expected = losses_and_gradients(model, make_batch(share_context=share_context))
    monkeypatch.setenv('GPT1_PATH', 'cuda')
    result = losses_and_gradients(model, make_batch(share_context=share_context))
    assert_same(result, expected)


@pytest.mark.parametrize('rate', RATES)
def test_dropout_acts_in_training_only(rate):
    model = make_model(dataclasses.replace(CONFIG, **{rate: 0.5}))
    batch = make_batch()
    model.train()
    assert not torch.equal(model(batch)[0], model(batch)[0])
    model.eval()
    torch.testing.assert_close(model(batch)[0], make_model()(batch)[0], rtol=0, atol=1e-12)


def test_masks_of_a_batch_follow_from_the_seed_of_pytorch():
    model, batch = make_model(WITH_DROPOUT).train(), make_batch()
    torch.manual_seed(1)
    first, second = model(batch)[0], model(batch)[0]
    torch.manual_seed(1)
    assert torch.equal(model(batch)[0], first)
    assert not torch.equal(second, first)


@pytest.mark.parametrize('share_context', [False, True])
def test_lm_coef_0_leaves_out_the_lm_loss(share_context):
    model = make_model()
    result = losses_and_gradients(model, make_batch(share_context=share_context), lm_coef=0)
    assert_same(result, plain_losses_and_gradients(model, 'choices', TREES, CHOSEN, lm_coef=0))
    assert model(make_batch(), lm=False)[1] is None


@pytest.mark.parametrize('share_context', [False, True])
@pytest.mark.parametrize('n_layer', [1, 3])
def test_evaluation_computes_the_last_layer_only_where_it_is_read(n_layer, share_context):
    model = make_model(dataclasses.replace(CONFIG, n_layer=n_layer)).eval()
    batch = make_batch(random_trees(UNEQUAL_CHOICES, 'choices'), share_context)
    weights = torch.arange(12).view(4, 3)
    results = []
    for lm in (True, False):
        logits, _ = model(batch, lm=lm)
        total = (logits * weights)[logits.isfinite()].sum()
        results.append((logits, gradients_of(total, model)))
    assert_same(*results, tolerance=1e-12)


def test_rounding_does_not_decide_between_equal_choices():
    trunk, (a, b) = TREES[0]
    batch = make_batch([Tree(trunk, (a, b, a))], True, None)
    logits = torch.tensor([[1.0, 2.0, 1.0 + 1e-7]])
    assert one_score_a_choice(logits, batch).tolist() == [[1, 2, 1]]


@pytest.mark.parametrize('share_context', [False, True])
def test_the_gradient_of_equal_choices_and_missing_choices(share_context):
    """Choice 3 of the first example equals its choice 1; the second example has two choices."""
    model = make_model()
    (trunk, (a, b)), second = TREES[:2]
    trees, target = [Tree(trunk, (a, b, a)), second], np.array([2, 0])
    result = losses_and_gradients(model, make_batch(trees, share_context, target))
    assert_same(result, plain_losses_and_gradients(model, 'choices', trees, target))


def test_parameters_that_are_not_loaded_are_drawn():
    torch.manual_seed(0)
    model = DoubleHeadModel(dataclasses.replace(CONFIG, n_embd=64))
    loaded = model.task_head.linear.weight
    before = loaded.detach().clone()
    init_weights(model, loaded=[loaded])
    assert torch.equal(loaded, before)
    for name, p in model.named_parameters():
        if name.endswith('.g'):
            assert (p == 1).all()
        elif p.dim() == 1:
            assert (p == 0).all()
        elif p is not loaded:
            assert p.std().item() == pytest.approx(0.02, rel=4 / p.numel() ** 0.5)
            assert abs(p.mean().item()) < 4 * 0.02 / p.numel() ** 0.5


def test_special_rows_are_the_first_numbers_of_the_random_state():
    rows = special_rows(16, np.random.RandomState(42))
    expected = (np.random.RandomState(42).randn(48) * 0.02).astype(np.float32)
    np.testing.assert_array_equal(rows, expected.reshape(3, 16))
