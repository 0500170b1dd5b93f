"""The joint loss of fine-tuning, against sums written out."""

import numpy as np
import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from tiny_models import SOME_TASKS, TEXTS, encoder, random_model

from gpt1.ops.batches import Tree, collate
from gpt1.run.encoding import encode_dataset
from gpt1.tasks.task import Example, Task
from loss import JointLoss, task_losses
from model_pytorch import Config, DoubleHeadModel, LMModel

LM_COEF = 0.5
CHOICES = Task(name='custom', title='Custom', layout='choices')


# ------------------------------------------------------------------------------------ task losses


def test_classes_have_the_cross_entropy():
    logits = torch.randn(4, 3, dtype=torch.float64)
    target = torch.tensor([2, 0, 1, 1])
    expected = [-logits[i].log_softmax(0)[target[i]].item() for i in range(4)]
    assert task_losses(logits, target).tolist() == pytest.approx(expected)


def test_probabilities_have_the_cross_entropy():
    logits = torch.randn(2, 3, dtype=torch.float64)
    target = torch.tensor([[0.4, 0.6, 0], [0, 0, 1]], dtype=torch.float64)
    log_p = logits.log_softmax(1)
    expected = [-0.4 * log_p[0, 0] - 0.6 * log_p[0, 1], -log_p[1, 2]]
    assert task_losses(logits, target).tolist() == pytest.approx([x.item() for x in expected])


def test_numbers_have_the_squared_error():
    logits, target = torch.tensor([[1.0], [-2.0]]), torch.tensor([3.0, -2.5])
    assert task_losses(logits, target).tolist() == [4, 0.25]


def test_a_missing_choice_does_not_change_the_loss():
    logits = torch.tensor([[1.0, 2.0, -torch.inf]], requires_grad=True)
    loss = task_losses(logits, torch.tensor([0]))
    assert loss.item() == pytest.approx(F.cross_entropy(logits[:, :2], torch.tensor([0])).item())
    loss.sum().backward()
    assert logits.grad[0, 2] == 0 and logits.grad.isfinite().all()


# ------------------------------------------------------------------------------------- joint loss


class FakeModel(nn.Module):
    """Returns given logits and LM losses."""

    def __init__(self, logits, lm_losses):
        super().__init__()
        self.logits, self.lm_losses = logits, lm_losses

    def forward(self, batch, lm):
        return self.logits, self.lm_losses if lm else None


def fake_batch(n_choices, share_context):
    examples = [Example('', ('a', *('b' * n)), 0) for n in n_choices]
    trees = encode_dataset(examples, encoder(), CHOICES, 50)
    target = np.zeros(len(n_choices), np.int64)
    return collate([trees.tree(i) for i in range(len(n_choices))], 10, share_context, target)


@pytest.mark.parametrize('n_choices', [[2, 2], [3, 1], [1, 4]])
def test_the_lm_loss_is_the_mean_over_the_sequences(n_choices):
    n_rows = sum(n_choices)
    logits = torch.randn(2, max(n_choices))
    lm_losses = torch.arange(1.0, n_rows + 1)  # of each sequence
    by_example = lm_losses.split(n_choices)
    expected = F.cross_entropy(logits, torch.tensor([0, 0]), reduction='none')
    expected += LM_COEF * torch.stack([losses.mean() for losses in by_example])

    separate = JointLoss(FakeModel(logits, lm_losses), LM_COEF)
    losses = separate(fake_batch(n_choices, share_context=False))
    torch.testing.assert_close(losses, expected)
    sums = torch.stack([losses.sum() for losses in by_example])  # what a shared row has
    shared = JointLoss(FakeModel(logits, sums), LM_COEF)
    losses = shared(fake_batch(n_choices, share_context=True))
    torch.testing.assert_close(losses, expected)


def lm_loss_of_one_sequence(model, tree):
    """Return the LM loss of the only sequence of a tree, as pre-training computes it."""
    lm_model = LMModel(model.config).eval()
    lm_model.transformer = model.transformer
    return lm_model(collate([tree], model.config.first_position, share_context=False)).item()


@pytest.mark.parametrize('share_context', [False, True])
@pytest.mark.parametrize('name', SOME_TASKS)
def test_the_loss_of_each_task(name, share_context):
    """The task's loss plus lm_coef times the mean over the sequences, one sequence at a time."""
    task = SOME_TASKS[name]
    label = 2.6 if task.soft_labels or task.regression else 1
    model = random_model(task)
    data = encode_dataset([Example('', TEXTS[name], label)] * 2, encoder(), task, 60)
    trees = [data.tree(i) for i in range(2)]
    first_position = model.config.first_position
    batch = collate(trees, first_position, share_context, data.targets[:2])

    with torch.no_grad():
        losses = JointLoss(model, LM_COEF)(batch)
        logits, _ = model(batch, lm=False)
        lm_losses = [
            lm_loss_of_one_sequence(model, Tree(trees[0].trunk, (branch,)))
            for branch in trees[0].branches
        ]
    expected = task_losses(logits, torch.from_numpy(data.targets))[0].item()
    expected += LM_COEF * np.mean(lm_losses)
    assert losses.tolist() == pytest.approx([expected] * 2, rel=1e-4)


@pytest.mark.parametrize('share_context', [False, True])
def test_examples_with_different_numbers_of_choices(share_context):
    """Each example of a batch has the loss that it has alone."""
    model = random_model(CHOICES)
    story = 'Ella had no tape.'
    examples = [
        Example('', (story, 'She took tape.', 'It was happy.', 'It was night.'), 2),
        Example('', (story, 'She had a piano.'), 0),
        Example('', (story, 'She went.', 'She went to the store.'), 1),
    ]
    data = encode_dataset(examples, encoder(), CHOICES, 60)
    trees = [data.tree(i) for i in range(3)]
    loss = JointLoss(model, LM_COEF)

    def losses(places):
        chosen = [trees[i] for i in places]
        first_position = model.config.first_position
        return loss(collate(chosen, first_position, share_context, data.targets[places]))

    with torch.no_grad():
        together = losses([0, 1, 2])
        alone = torch.cat([losses([i]) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_without_lm_coef_no_lm_loss_is_computed():
    class NoLMModel(DoubleHeadModel):
        def forward(self, batch, lm=True):
            assert not lm
            return super().forward(batch, lm)

    batch = fake_batch([2, 2], share_context=True)
    model = NoLMModel(Config(n_vocab=encoder().n_vocab, n_ctx=20, n_embd=8, n_head=2, n_layer=1))
    for p in model.parameters():
        nn.init.normal_(p)
    losses = JointLoss(model.eval(), 0)(batch)
    logits, _ = model(batch, lm=False)
    torch.testing.assert_close(losses, task_losses(logits, batch.target))


def test_a_joint_loss_has_the_parameters_of_its_model():
    model = random_model(CHOICES)
    joint = JointLoss(model, LM_COEF)
    assert joint.model is model
    assert [id(p) for p in joint.parameters()] == [id(p) for p in model.parameters()]
