"""What a run does on a GPU only, run on the CPU: replicas, pinned copies, late losses, bf16.

Where PyTorch needs a GPU, these tests put in its place what computes the same on the CPU. All of
this project's own code runs as it is.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from test_functional import TREES as ALL_TREES
from test_resume import NO_DROPOUT, assert_same_end
from tiny_models import CONFIG
from torch.overrides import TorchFunctionMode

import train
from gpt1.ops.batches import collate
from gpt1.run import parallel, training
from gpt1.run.parallel import ParallelModule, Ranks, StepSize, to_device
from gpt1.run.precision import DTYPES
from gpt1.run.progress import LossMeter
from gpt1.run.training import Job
from loss import JointLoss
from model_pytorch import DoubleHeadModel, init_weights

CPU = torch.device('cpu')
GPU = torch.device('cuda', 0)
TARGETS = np.array([0, 1, 1, 0])


@pytest.fixture(autouse=True)
def on_the_cuda_path(monkeypatch):
    monkeypatch.setenv('GPT1_PATH', 'cuda')


def batch_of(items):
    return collate([ALL_TREES[i] for i in items], CONFIG.first_position, False, TARGETS[items])


class CPUReplicas(parallel._Devices):
    """`nn.DataParallel` on CPU devices: what PyTorch does on GPUs is replaced, not `scatter`."""

    def __init__(self, module, devices):
        super().__init__(module)
        self.device_ids = devices
        self.output_device = self.src_device_obj = devices[0]

    def replicate(self, module, device_ids):
        return [module] * len(device_ids)

    def parallel_apply(self, replicas, inputs, kwargs):
        """Call each replica in a thread, which learns whether autocast is on, but not its type."""
        is_on = torch.is_autocast_enabled('cpu')

        def call(replica, batches, options):
            with torch.autocast('cpu', enabled=is_on):
                return replica(*batches, **options)

        with ThreadPoolExecutor(len(replicas)) as pool:
            return list(pool.map(call, replicas, inputs, kwargs))

    def gather(self, outputs, output_device):
        return torch.cat(outputs)


def losses_and_gradients(devices, parts, precision):
    torch.manual_seed(0)
    model = DoubleHeadModel(CONFIG)
    init_weights(model, std=0.3)
    module, seen = JointLoss(model, 0.5), []
    one = torch.ones(1, 1)
    module.register_forward_pre_hook(lambda *_: seen.append(torch.mm(one, one).dtype))
    parallel_module = ParallelModule(module, Ranks(devices))
    losses = parallel_module([batch_of(part) for part in parts], precision, last=True)
    (losses.sum() * 0.25).backward()
    return losses.detach(), {name: p.grad for name, p in module.named_parameters()}, seen


@pytest.mark.parametrize('precision, tolerance', [('fp32', 1e-6), ('bf16', 2e-2)])
@pytest.mark.parametrize('parts', [([0, 1], [2, 3]), ([0, 1, 2], [3]), ([0, 1, 2, 3],)])
def test_two_replicas_compute_what_one_does(monkeypatch, parts, precision, tolerance):
    """Each in the type of the run: a thread does not inherit it, and PyTorch's is float16."""
    monkeypatch.setattr(parallel, '_Devices', CPUReplicas)
    losses, gradients, seen = losses_and_gradients([CPU, CPU], parts, precision)
    expected, other, _ = losses_and_gradients([CPU], [[0, 1, 2, 3]], precision)
    assert seen == [DTYPES.get(precision, torch.float32)] * len(parts)
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses, expected, rtol=0, atol=tolerance)
    for name, gradient in gradients.items():
        assert gradient.dtype == torch.float32
        scale = max(1, other[name].abs().max().item())
        torch.testing.assert_close(gradient, other[name], rtol=0, atol=tolerance * scale)


def test_a_run_on_two_replicas(command, other_command, monkeypatch):
    """Three steps an update: the last group has a single one."""
    options = ('--n_iter', 1, '--n_batch', 3, '--n_gpu', 3, *NO_DROPOUT)
    assert train.main(other_command.argv(*options)) == 0
    monkeypatch.setattr(parallel, '_Devices', CPUReplicas)
    monkeypatch.setattr(train, 'find_devices', lambda *args: [CPU, CPU])
    assert train.main(command.argv(*options)) == 0
    assert command.log()[1] == pytest.approx(other_command.log()[1], abs=1e-5)


def test_a_batch_is_pinned_before_its_asynchronous_copy(monkeypatch):
    pinned = []

    def pin_memory(tensor):
        pinned.append(tensor.clone())
        return pinned[-1]

    def to(tensor, device, non_blocking):
        assert device == GPU and non_blocking and tensor is pinned.pop(0)
        return tensor

    monkeypatch.setattr(torch.Tensor, 'pin_memory', pin_memory)
    monkeypatch.setattr(torch.Tensor, 'to', to)
    batch = batch_of([0, 1])
    moved = to_device(batch, GPU)
    assert not pinned and moved.ids is not batch.ids and torch.equal(moved.ids, batch.ids)


class OnGPU(torch.Tensor):
    """A tensor that says that it is on a GPU."""

    is_cuda = True
    device = torch.device('cuda', 1)


class Event:
    """`torch.cuda.Event`: the copy before it has arrived once somebody has waited for it."""

    log = []

    def record(self, stream):
        assert stream == OnGPU.device  # not that of PyTorch's current device
        self.log.append(('record', id(self)))

    def synchronize(self):
        self.log.append(('wait', id(self)))


def test_a_loss_is_read_when_its_copy_has_arrived(monkeypatch):
    """By a meter that is two updates late."""
    empty_like, pinned, lines = torch.empty_like, [], []

    def without_pinning(tensor, device, pin_memory):
        pinned.append(pin_memory)
        return empty_like(tensor.as_subclass(torch.Tensor), device=device)

    monkeypatch.setattr(torch, 'empty_like', without_pinning)
    monkeypatch.setattr(torch.cuda, 'Event', Event)
    monkeypatch.setattr(torch.cuda, 'current_stream', lambda device: device)
    monkeypatch.setattr(Event, 'log', [])
    meter = LossMeter(Job(), log_every=2, lag=2)
    meter.log = lambda **line: lines.append(line)
    for update in range(1, 5):
        values = torch.tensor([update, update + 1.0, 1.0, 15.0 * (update == 4)])
        meter.add(update, ['a', 'b'], values.as_subclass(OnGPU), lr=update)
        assert len(meter.pending) == min(update, 2)
    assert meter.loss == 2.5 and pinned == [True] * 4
    recorded = [event for what, event in Event.log if what == 'record']
    waited = [event for what, event in Event.log if what == 'wait']
    assert len(recorded) == 4 and waited == recorded[:2]  # nothing waits for the newest ones
    assert not meter.stop  # the signal arrives late, too
    meter.read()
    assert meter.loss == 4.5 and meter.since_evaluation.value == 3.0 and meter.stop
    assert lines == [{'n_updates': n, 'loss': n, 'lr': n, 'grad_norm': 1.0} for n in (2, 4)]
    assert [event for what, event in Event.log if what == 'wait'] == recorded


class NothingWaits(TorchFunctionMode):
    """Refuses what would make the host wait for a GPU: a copy to it, or a read of a number."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, getattr(function, '__name__', '')
        assert name not in ('item', 'tolist', 'cpu', 'numpy', '__bool__', '__float__', 'nonzero')
        assert not ('device' in kwargs and name in ('tensor', 'as_tensor'))
        return function(*args, **kwargs)


def test_a_run_with_late_losses_and_saves_in_the_background(command, other_command, monkeypatch):
    """It ends as one without, which had the same dropout; no update waits for the GPU."""
    options = ('--n_iter', 2, '--save_every', 3, '--deterministic')
    try:
        assert train.main(other_command.argv(*options)) == 0
        make_trainer = train.make_trainer

        def watched(function):
            def call(*args):
                with NothingWaits():
                    return function(*args)

            return call

        def as_on_a_gpu(*args):
            trainer = make_trainer(*args)
            trainer.meter.lag = 2
            trainer.saver = type(trainer.saver)(background=True)
            return trainer

        monkeypatch.setattr(training.Trainer, 'update', watched(training.Trainer.update))
        monkeypatch.setattr(Ranks, 'total', watched(Ranks.total))
        monkeypatch.setattr(train, 'make_trainer', as_on_a_gpu)
        assert train.main(command.argv(*options)) == 0
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
    assert_same_end(command, other_command)


def test_out_of_memory_halves_the_steps_and_frees_the_gpu(monkeypatch, capsys):
    """The cache is emptied after the error and its tensors are gone."""
    done = []
    monkeypatch.setattr(torch.cuda, 'empty_cache', lambda: done.append('emptied'))
    steps = StepSize(8, 'examples', '', 'the results are the same')

    def attempt(size):
        done.append(size)
        if size > 3:
            raise torch.OutOfMemoryError('CUDA out of memory')

    steps.fit(attempt, torch.nn.Linear(1, 1))
    assert done == [8, 'emptied', 4, 'emptied', 2]
    assert capsys.readouterr().err.count('out of memory') == 2
