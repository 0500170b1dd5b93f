"""The model and its losses compared with `plain_model`, which reads like the specification."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from plain_model import joint_losses, plain_model
from tiny_models import CONFIG

from gpt1.ops.batches import Tree, build_tree, collate, collate_windows
from gpt1.ops.masks import DropoutMasks
from loss import JointLoss
from model_pytorch import DoubleHeadModel, LMModel, init_weights, one_score_a_choice

RATES = {'embd_pdrop': 0.3, 'attn_pdrop': 0.2, 'resid_pdrop': 0.1, 'clf_pdrop': 0.4}
WITH_DROPOUT = dataclasses.replace(CONFIG, **RATES)
LM_COEF = 0.5
BOTH_LAYOUTS = pytest.mark.parametrize('share_context', [False, True])


def random_trees(lengths, layout, seed=0):
    """lengths: the numbers of tokens of the texts of each example. Of choices, one is context."""
    random = np.random.RandomState(seed)
    return [
        build_tree([random.randint(CONFIG.n_vocab, size=n) for n in row], layout, 1, CONFIG.n_vocab)
        for row in lengths
    ]


TEXTS = [(9,), (1,), (14,), (0,)]
PAIRS = [(9, 8), (1, 4), (0, 3), (5, 0)]
CHOICES = [(9, 3, 5), (4, 6, 2), (12, 1, 7), (0, 0, 3)]
UNEQUAL_CHOICES = [(9, 3, 5), (4, 6), (7, 1, 7, 2), (0, 2, 3)]
CLASSES = np.array([2, 0, 1, 1])
CHOSEN = np.array([1, 0, 1, 0])
PROBABILITIES = np.random.RandomState(0).dirichlet(np.ones(6), 4)
NUMBERS = np.array([0.5, -1.0, 2.0, 0.0])
# Each kind of task: layout, outputs of the linear layer, lengths of the texts, targets.
TASKS = {
    'text': ('text', 3, TEXTS, CLASSES),
    'pair': ('pair', 3, PAIRS, CLASSES),
    'similarity': ('similarity', 3, PAIRS, CLASSES),
    'soft labels': ('similarity', 6, PAIRS, PROBABILITIES),
    'regression': ('text', 1, TEXTS, NUMBERS),
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
    return gradients_of(JointLoss(model, lm_coef)(batch), model)


def plain_losses_and_gradients(model, layout, trees, target, lm_coef=LM_COEF):
    parameters = dict(model.named_parameters())
    logits, lm_losses = plain_model(parameters, model.config, layout, trees)
    return gradients_of(joint_losses(logits, lm_losses, torch.from_numpy(target), lm_coef), model)


def gradients_of(losses, model):
    """The losses, and the gradients of their sum by parameter."""
    names, parameters = zip(*model.named_parameters())
    gradients = torch.autograd.grad(losses.sum(), parameters, materialize_grads=True)
    return losses.detach(), dict(zip(names, gradients))


def assert_same(result, expected, tolerance=1e-10):
    torch.testing.assert_close(result[0], expected[0], rtol=0, atol=tolerance)
    for name, gradient in expected[1].items():
        torch.testing.assert_close(
            result[1][name], gradient, rtol=0, atol=tolerance, msg=lambda m, n=name: f'{n}: {m}'
        )


@BOTH_LAYOUTS
@pytest.mark.parametrize('afn', ['gelu', 'relu', 'swish'])
@pytest.mark.parametrize('task', TASKS)
def test_losses_and_gradients_of_each_task(task, afn, share_context):
    layout, n_out, lengths, target = TASKS[task]
    model = make_model(dataclasses.replace(CONFIG, afn=afn), layout, n_out)
    trees = random_trees(lengths, layout)
    result = losses_and_gradients(model, make_batch(trees, share_context, target))
    assert_same(result, plain_losses_and_gradients(model, layout, trees, target))


texts_of_choices = st.lists(
    st.lists(st.integers(0, 5), min_size=2, max_size=4), min_size=1, max_size=4
)


@settings(max_examples=15, deadline=None)
@given(texts_of_choices, st.integers(0, 100))
@example([(2, *[5] * 300)], 0)  # more branches than fit a byte
def test_shared_and_separate_rows_give_the_same(lengths, seed):
    model = make_model()
    trees = random_trees(lengths, 'choices', seed)
    target = np.array([len(texts) - 2 for texts in lengths])  # the last choice
    separate = losses_and_gradients(model, make_batch(trees, False, target))
    assert_same(losses_and_gradients(model, make_batch(trees, True, target)), separate)


def test_lm_model_is_the_mean_over_the_tokens_after_the_first():
    model = make_model(layout='text')
    ids = np.random.RandomState(0).randint(CONFIG.n_vocab, size=(3, CONFIG.n_ctx))
    trees = [Tree(row[:-1], (row[-1:],)) for row in ids]
    _, expected = plain_model(dict(model.named_parameters()), CONFIG, 'text', trees)
    losses = LMModel.forward(model, collate_windows(ids, CONFIG.first_position))
    torch.testing.assert_close(losses, torch.cat(expected), rtol=0, atol=1e-10)


@BOTH_LAYOUTS
@pytest.mark.parametrize('path, config', [('plain', WITH_DROPOUT), ('cuda', CONFIG)])
def test_other_paths_give_the_same_losses_and_gradients(monkeypatch, path, config, share_context):
    """CUDA draws other masks."""
    model = make_model(config).train()
    results = []
    for name in ('cpu', path):
        monkeypatch.setenv('GPT1_PATH', name)
        batch = make_batch(share_context=share_context)
        batch.masks = DropoutMasks(seed=1)
        results.append(losses_and_gradients(model, batch))
    assert_same(*results)


@pytest.mark.parametrize('rate', RATES)
def test_dropout_acts_in_training_only(rate):
    model = make_model(dataclasses.replace(CONFIG, **{rate: 0.5}))
    batch = make_batch()
    model.train()
    torch.manual_seed(1)
    first, second = model(batch)[0], model(batch)[0]
    torch.manual_seed(1)
    assert torch.equal(model(batch)[0], first) and not torch.equal(second, first)
    model.eval()
    torch.testing.assert_close(model(batch)[0], make_model()(batch)[0], rtol=0, atol=1e-12)


@BOTH_LAYOUTS
def test_lm_coef_0_leaves_out_the_lm_loss(share_context):
    model = make_model()
    result = losses_and_gradients(model, make_batch(share_context=share_context), lm_coef=0)
    assert_same(result, plain_losses_and_gradients(model, 'choices', TREES, CHOSEN, lm_coef=0))
    assert model(make_batch(), lm=False)[1] is None


@BOTH_LAYOUTS
@pytest.mark.parametrize('n_layer', [1, 3])
def test_evaluation_computes_the_last_layer_only_where_it_is_read(n_layer, share_context):
    model = make_model(dataclasses.replace(CONFIG, n_layer=n_layer)).eval()
    batch = make_batch(random_trees(UNEQUAL_CHOICES, 'choices'), share_context)
    weights = torch.arange(12).view(4, 3)
    results = []
    for lm in (True, False):
        logits, _ = model(batch, lm=lm)
        results.append(gradients_of((logits * weights)[logits.isfinite()], model))
    assert_same(*results, tolerance=1e-12)


def test_rounding_does_not_decide_between_equal_choices():
    trunk, (a, b) = TREES[0]
    batch = make_batch([Tree(trunk, (a, b, a))], True, None)
    logits = torch.tensor([[1.0, 2.0, 1.0 + 1e-7]])
    assert one_score_a_choice(logits, batch).tolist() == [[1, 2, 1]]


@BOTH_LAYOUTS
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
