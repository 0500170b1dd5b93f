"""The joint loss of fine-tuning, against sums written out."""

import numpy as np
import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from gpt1.ops.batches import build_tree, collate
from loss import JointLoss, task_losses

LM_COEF = 0.5


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
        assert not lm or self.lm_losses is not None
        return self.logits, self.lm_losses if lm else None


def fake_batch(n_choices, share_context):
    texts = np.zeros(1, np.int64)
    trees = [build_tree([texts] * (1 + n), 'choices', 1, 7) for n in n_choices]
    return collate(trees, 10, share_context, np.zeros(len(n_choices), np.int64))


def test_without_lm_coef_no_lm_loss_is_computed():
    logits = torch.randn(2, 2)
    model = FakeModel(logits, None)  # fails if it is asked for LM losses
    losses = JointLoss(model, 0)(fake_batch([2, 2], share_context=True))
    torch.testing.assert_close(losses, task_losses(logits, torch.tensor([0, 0])))


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
