"""What a run does on a GPU only, run on the CPU: replicas, pinned copies, late losses, bf16.

Where PyTorch needs a GPU, these tests put in its place what computes the same on the CPU. All of
this project's own code runs as it is.
"""

import copy
import threading

import numpy as np
import pytest
import torch
from test_functional import TREES as ALL_TREES
from test_resume import NO_DROPOUT
from tiny_models import CONFIG
from torch.overrides import TorchFunctionMode

import train
from gpt1.ops.batches import Batch, collate
from gpt1.run import parallel, training
from gpt1.run.parallel import LossMeter, ParallelModule, Ranks, StepSize, to_device
from gpt1.run.precision import Precision
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


# ------------------------------------------------------------------------ several GPUs in a process


class CPUReplicas(parallel._Devices):
    """`nn.DataParallel` on several CPU devices.

    The base class has no devices without a GPU. Replaced are the three functions of PyTorch that
    copy parameters, run threads on GPUs, and collect the results. `scatter` is this project's.
    """

    def __init__(self, module, devices):
        super().__init__(module)
        self.device_ids, self.output_device = devices, devices[0]
        self.src_device_obj = devices[0]

    def replicate(self, module, device_ids):
        """Return modules whose parameters are copies that pass on their gradients."""
        replicas = []
        for _ in device_ids:
            replica = copy.deepcopy(module)
            originals = dict(module.named_parameters())
            for prefix, part in replica.named_modules():
                for name in list(part._parameters):
                    original = originals[f'{prefix}.{name}'.lstrip('.')]
                    del part._parameters[name]
                    setattr(part, name, original.clone())
            replicas.append(replica)
        return replicas

    def parallel_apply(self, replicas, inputs, kwargs):
        """Call each replica in a thread, as PyTorch does: it passes on whether autocast is on."""
        results, is_on = {}, torch.is_autocast_enabled('cpu')

        def call(i):
            try:
                with torch.autocast('cpu', enabled=is_on):
                    results[i] = replicas[i](*inputs[i], **kwargs[i])
            except Exception as error:
                results[i] = error

        threads = [threading.Thread(target=call, args=(i,)) for i in range(len(replicas))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for result in results.values():
            if isinstance(result, Exception):
                raise result
        return [results[i] for i in range(len(replicas))]

    def gather(self, outputs, output_device):
        return torch.cat(outputs)


@pytest.fixture
def replicas(monkeypatch):
    monkeypatch.setattr(parallel, '_Devices', CPUReplicas)


def parallel_losses(devices, parts, precision='fp32'):
    """Return the losses of two updates' steps, and all gradients, on the given devices."""
    torch.manual_seed(0)
    model = DoubleHeadModel(CONFIG)
    init_weights(model, std=0.3)
    module = JointLoss(model, 0.5)
    calls = ParallelModule(module, Ranks(devices))
    scaled = Precision(precision, CPU)
    losses = [calls.backward([batch_of(part) for part in parts], 0.25, scaled, True)]
    return torch.cat(losses), {name: p.grad for name, p in module.named_parameters()}


@pytest.mark.parametrize('precision, tolerance', [('fp32', 1e-6), ('bf16', 2e-2)])
@pytest.mark.parametrize('parts', [([0, 1], [2, 3]), ([0, 1, 2], [3])])
def test_two_replicas_compute_the_losses_and_gradients_of_one(
    replicas, parts, precision, tolerance
):
    losses, gradients = parallel_losses([CPU, CPU], parts, precision)
    expected, other = parallel_losses([CPU], [[0, 1, 2, 3]], precision)
    assert losses.dtype == torch.float32 and losses.shape == (4,)
    torch.testing.assert_close(losses, expected, rtol=0, atol=tolerance)
    for name, gradient in gradients.items():
        assert gradient.dtype == torch.float32
        scale = max(1, other[name].abs().max().item())
        torch.testing.assert_close(gradient, other[name], rtol=0, atol=tolerance * scale)


def test_the_last_step_may_be_for_one_device_only(replicas):
    losses, _ = parallel_losses([CPU, CPU], [[0, 1, 2, 3]])
    expected, _ = parallel_losses([CPU], [[0, 1, 2, 3]])
    torch.testing.assert_close(losses, expected)


def products_seen(monkeypatch):
    """Return a list that receives the types of the products of each thread."""
    seen = []
    forward = JointLoss.forward

    def noting(self, batch):
        seen.append(torch.mm(torch.ones(2, 2), torch.ones(2, 2)).dtype)
        return forward(self, batch)

    monkeypatch.setattr(JointLoss, 'forward', noting)
    return seen


@pytest.mark.parametrize(
    'precision, dtype', [('fp32', torch.float32), ('bf16', torch.bfloat16), ('fp16', torch.float16)]
)
def test_every_replica_computes_in_the_precision_of_the_run(
    replicas, monkeypatch, precision, dtype
):
    """A thread does not inherit the type of autocast, and PyTorch's default on a GPU is float16."""
    seen = products_seen(monkeypatch)
    parallel_losses([CPU, CPU], ([0, 1], [2, 3]), precision)
    assert seen == [dtype, dtype]


def test_a_run_on_two_replicas(command, other_command, replicas, monkeypatch, capsys):
    """Three steps an update: the last group has a single one. Memory is short once."""
    options = ('--n_iter', 1, '--n_batch', 3, '--n_gpu', 3, *NO_DROPOUT)
    assert train.main(other_command.argv(*options)) == 0
    monkeypatch.setattr(train, 'find_devices', lambda *args: [CPU, CPU])
    forward, calls = DoubleHeadModel.forward, []

    def failing(self, batch, lm=True):
        calls.append(batch)
        if len(calls) == 2:
            raise torch.OutOfMemoryError('made to fail')
        return forward(self, batch, lm)

    monkeypatch.setattr(DoubleHeadModel, 'forward', failing)
    assert train.main(command.argv(*options)) == 0
    assert 'continuing with steps of' in capsys.readouterr().err
    assert command.log()[1] == pytest.approx(other_command.log()[1], abs=1e-5)


# -------------------------------------------------------------------------------- pinned copies


@pytest.fixture
def pinned(monkeypatch):
    """Note which tensors are pinned, and the device of each copy. Both stay on the CPU."""
    noted = []

    def pin_memory(tensor):
        copied = tensor.clone()
        noted.append(copied)
        return copied

    monkeypatch.setattr(torch.Tensor, 'pin_memory', pin_memory)
    return noted


def test_a_batch_is_pinned_before_its_asynchronous_copy(pinned, monkeypatch):
    batch = batch_of([0, 1])
    copies, to = [], torch.Tensor.to

    def noting(tensor, device, non_blocking):
        copies.append((tensor, device, non_blocking))
        return to(tensor, CPU)

    monkeypatch.setattr(torch.Tensor, 'to', noting)
    moved = to_device(batch, GPU)
    tensors = [name for name, value in vars(batch).items() if isinstance(value, torch.Tensor)]
    assert len(copies) == len(pinned) == len(tensors)
    for (tensor, device, non_blocking), source in zip(copies, pinned):
        assert tensor is source and device == GPU and non_blocking
    for name in tensors:
        assert torch.equal(getattr(moved, name), getattr(batch, name))
    assert (moved.rows, moved.length, moved.masks) == (batch.rows, batch.length, batch.masks)


def test_on_the_cpu_nothing_is_pinned(pinned):
    to_device(batch_of([0, 1]), CPU)
    assert pinned == []


def test_data_parallel_pins_every_batch(pinned, replicas, monkeypatch):
    """The copies to the GPUs follow in `scatter`."""
    calls = ParallelModule(JointLoss(DoubleHeadModel(CONFIG), 0.5), Ranks([CPU, CPU]))
    calls.devices = [GPU, GPU]
    seen = []
    monkeypatch.setattr(CPUReplicas, 'forward', lambda self, *batches, **_: seen.extend(batches))
    with pytest.raises(AttributeError):  # there are no losses
        calls.backward([batch_of([0, 1]), batch_of([2, 3])], 0.25, Precision('fp32', CPU), True)
    assert all(isinstance(batch, Batch) for batch in seen)
    tensors = [v for batch in seen for v in vars(batch).values() if isinstance(v, torch.Tensor)]
    assert {id(tensor) for tensor in tensors} == {id(tensor) for tensor in pinned}


# ------------------------------------------------------------------------ losses that arrive late


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


@pytest.fixture
def gpu_meter(monkeypatch):
    """A meter as on a GPU: two updates late."""
    Event.log = []
    empty_like, pinned = torch.empty_like, []

    def without_pinning(tensor, device, pin_memory):
        pinned.append(pin_memory)
        return empty_like(tensor.as_subclass(torch.Tensor), device=device)

    monkeypatch.setattr(torch, 'empty_like', without_pinning)
    monkeypatch.setattr(torch.cuda, 'Event', Event)
    monkeypatch.setattr(torch.cuda, 'current_stream', lambda device: device)
    meter = LossMeter('examples', list, lag=2)
    meter.pinned = pinned
    return meter


def figures_of(loss, stop=0.0):
    return torch.tensor([loss, loss + 1, 1.0, stop]).as_subclass(OnGPU)


def test_a_loss_is_read_when_its_copy_has_arrived(gpu_meter):
    for update in range(1, 5):
        gpu_meter.add(update, ['a', 'b'], figures_of(update))
        assert len(gpu_meter.pending) == min(update, 2)
    assert gpu_meter.loss == 2.5 and gpu_meter.pinned == [True] * 4
    recorded = [event for what, event in Event.log if what == 'record']
    waited = [event for what, event in Event.log if what == 'wait']
    assert len(recorded) == 4 and waited == recorded[:2]  # nothing waits for the newest ones
    gpu_meter.drain()
    assert gpu_meter.loss == 4.5 and gpu_meter.mean == 3.0
    assert [event for what, event in Event.log if what == 'wait'] == recorded


def test_a_signal_arrives_late_on_a_gpu(gpu_meter):
    gpu_meter.add(1, ['a', 'b'], figures_of(1, stop=15.0))
    assert not gpu_meter.stop
    for update in (2, 3):
        gpu_meter.add(update, ['a', 'b'], figures_of(1))
    assert gpu_meter.stop


class NothingWaits(TorchFunctionMode):
    """Refuses what would make the host wait for a GPU: a copy to it, or a read of a number."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, getattr(function, '__name__', '')
        assert name not in ('item', 'tolist', 'cpu', 'numpy', '__bool__', '__float__', 'nonzero')
        assert not ('device' in kwargs and name in ('tensor', 'as_tensor'))
        return function(*args, **kwargs)


def test_no_part_of_an_update_waits_for_the_gpu(command, monkeypatch):
    update, total = training.Trainer.update, Ranks.total

    def watched(function):
        def call(*args):
            with NothingWaits():
                return function(*args)

        return call

    monkeypatch.setattr(training.Trainer, 'update', watched(update))
    monkeypatch.setattr(Ranks, 'total', watched(total))
    assert train.main(command.argv('--n_iter', 1)) == 0


# -------------------------------------------------------------------------------- whole runs


def test_a_run_with_late_losses_and_saves_in_the_background(command, other_command, monkeypatch):
    """Two runs of the kernels of a GPU, with dropout, end the same; so does one with a lag."""
    options = ('--n_iter', 2, '--save_every', 3, '--deterministic')
    try:
        assert train.main(other_command.argv(*options)) == 0
        make_trainer = train.make_trainer

        def as_on_a_gpu(*args):
            trainer = make_trainer(*args)
            trainer.meter.lag = 2
            trainer.saver = type(trainer.saver)(background=True)
            return trainer

        monkeypatch.setattr(train, 'make_trainer', as_on_a_gpu)
        assert train.main(command.argv(*options)) == 0
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
    assert command.log()[1:] == other_command.log()[1:]
    best, expected = (
        torch.load(c.folder / 'save' / 'rocstories' / 'best_params', weights_only=True)
        for c in (command, other_command)
    )
    assert all(torch.equal(best[name], value) for name, value in expected.items())


def test_out_of_memory_halves_the_steps_and_frees_the_gpu(monkeypatch, capsys):
    """The cache is emptied after the error and its tensors are gone."""
    emptied = []
    monkeypatch.setattr(torch.cuda, 'empty_cache', lambda: emptied.append(True))
    steps = StepSize(8, 'examples', '', 'the results are the same')
    sizes = []

    def attempt(size):
        sizes.append(size)
        if size > 3:
            raise torch.OutOfMemoryError('CUDA out of memory')
        return size

    assert steps.fit(attempt, torch.nn.Linear(1, 1)) == 2
    assert sizes == [8, 4, 2] and len(emptied) == 2
    assert capsys.readouterr().err.count('out of memory') == 2
