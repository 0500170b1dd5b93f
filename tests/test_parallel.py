"""One global batch on one, two, three, four processes, and on DataParallel's devices: the same update."""

import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest
import torch
from conftest import PROCESSES, ROOT, Command
from test_model import CONFIG, STORIES
from test_resume import NO_DROPOUT, assert_same_end, wait_for

import train
from model_pytorch import DoubleHeadModel, init_weights
from parallel import DevicesModel, LossMeter, Ranks
from utils import InputError, collate


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def rank_environments(n):
    """What torchrun tells each of n processes."""
    port = str(free_port())
    return [
        dict(
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            WORLD_SIZE=str(n),
            MASTER_ADDR='127.0.0.1',
            MASTER_PORT=port,
        )
        for rank in range(n)
    ]


def start_ranks(command, n, *options, **start):
    return [command.start(*options, **start, **environment) for environment in rank_environments(n)]


def join_ranks(processes, status):
    """To their end; one that hangs has no exit status."""
    for process in processes:
        process.join(60)
    exitcodes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    assert exitcodes == [status] * len(processes)


def run_ranks(command, n, *options, status=0, **start):
    """`train.py` in n processes, as torchrun starts them."""
    join_ranks(start_ranks(command, n, *options, **start), status)


@pytest.fixture(scope='module')
def alone(tmp_path_factory):
    """The run of one process, without dropout; 20 stories an update, which no number of ranks but 1, 2 and 4 divides."""
    command = Command(tmp_path_factory.mktemp('alone'))
    command.run('--n_batch', 20, *NO_DROPOUT)
    return command


def assert_same_figures(command, alone):
    for line, other in zip(command.log()[1:], alone.log()[1:], strict=True):
        assert line == pytest.approx(other, abs=1e-5)
    assert command.read('submission', 'ROCStories.tsv') == alone.read(
        'submission', 'ROCStories.tsv'
    )


@pytest.mark.parametrize(
    'ranks, options',
    [
        (2, ['--n_batch', 20]),
        (3, ['--n_batch', 20]),
        (4, ['--n_batch', 5, '--n_gpu', 4]),
        (3, ['--n_batch', 2, '--n_gpu', 10]),
    ],
)
def test_ranks_and_micro_batches_give_the_same(command, alone, ranks, options):
    run_ranks(command, ranks, *options, *NO_DROPOUT)
    assert_same_figures(command, alone)
    state, expected = (
        torch.load(c.folder / 'save' / 'rocstories' / 'best_params', weights_only=True)
        for c in (command, alone)
    )
    for name, value in expected.items():
        if name != 'task_head.linear.bias':  # only rounding noise moves it
            torch.testing.assert_close(
                state[name],
                value,
                rtol=0,
                atol=2e-5 if not name.endswith('c_attn.b') else 1e-3,
                msg=lambda m: f'{name}: {m}',
            )
    assert command.output.count('data  ') == 1  # one rank speaks


def _check_recording(output, environment):
    os.environ.update(environment)
    handle = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(handle, 1)
    sys.exit(
        pytest.main(
            [
                '-q',
                '-p',
                'no:cacheprovider',
                os.path.join(ROOT, 'tests', 'test_openai_golden.py') + '::test_every_update',
            ]
        )
    )


@pytest.mark.parametrize('n', [2, 3, 4])
def test_ranks_against_the_recorded_run(n, tmp_path):
    """OpenAI's own program, update by update: each rank runs the test of one process, whose updates are then made by all of them."""
    processes = [
        PROCESSES.Process(target=_check_recording, args=(str(tmp_path / 'output'), environment))
        for environment in rank_environments(n)
    ]
    for process in processes:
        process.start()
    join_ranks(processes, 0)
    assert (tmp_path / 'output').read_text().count('1 passed') == n


def test_more_ranks_than_stories(command):
    """A rank without a share still takes part in the sum."""
    run_ranks(command, 3, '--n_batch', 2, '--n_iter', 1, '--save_every', 0, *NO_DROPOUT)
    assert command.log()[1]['n_updates'] == 40


def test_with_dropout_a_rerun_repeats_it(command, other_command):
    for c in (command, other_command):
        run_ranks(c, 2, '--n_iter', 1)
    assert_same_end(command, other_command)


def test_ranks_draw_different_masks(command):
    """Two ranks with the same story and the same masks would have equal losses."""
    run_ranks(command, 2, '--n_iter', 1)
    checkpoint = torch.load(
        command.folder / 'save' / 'rocstories' / 'checkpoint', weights_only=True
    )
    first, second = (state['cpu'] for state in checkpoint['torch_states'])
    assert not torch.equal(first, second)


def test_a_signal_stops_all_ranks_at_the_same_update_and_resumes(command, other_command):
    run_ranks(other_command, 2, '--n_iter', 4)
    processes = start_ranks(command, 2, '--n_iter', 4)
    while not (command.folder / 'save' / 'rocstories' / 'checkpoint').exists():
        assert all(process.is_alive() for process in processes)
        time.sleep(0.002)
    os.kill(processes[1].pid, signal.SIGTERM)  # one is enough
    join_ranks(processes, 143)
    run_ranks(command, 2, '--n_iter', 4, '--resume')
    assert_same_end(command, other_command)


def test_input_errors_end_all_ranks(command):
    join_ranks(start_ranks(command, 2, '--n_valid', 112), 2)
    assert command.output.count('\n') == 1


def torchrun(command, *options, max_restarts=0):
    return subprocess.Popen(
        [
            sys.executable,
            '-m',
            'torch.distributed.run',
            '--standalone',
            '--nproc_per_node',
            '2',
            '--max-restarts',
            str(max_restarts),
            '--monitor-interval',
            '0.1',
            os.path.join(ROOT, 'train.py'),
            *command.argv(*options),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def kill_a_rank(agent, when):
    """SIGKILL a child of torchrun once `when()` holds."""
    while not when():
        assert agent.poll() is None
        time.sleep(0.01)
    children = subprocess.run(
        ['ps', '--ppid', str(agent.pid), '-o', 'pid='], capture_output=True, text=True
    ).stdout.split()
    os.kill(int(children[-1]), signal.SIGKILL)


def test_a_killed_rank_restarts_to_the_same_end(command, other_command):
    """`torchrun --max-restarts`: all ranks start again, from the last checkpoint."""
    options = ('--n_iter', 3, '--save_every', 2)
    run_ranks(other_command, 2, *options)
    agent = torchrun(command, *options, max_restarts=1)
    kill_a_rank(agent, (command.folder / 'save' / 'rocstories' / 'checkpoint').exists)
    output, _ = agent.communicate(timeout=120)
    assert agent.returncode == 0, output
    assert 'resumed after update' in output
    assert_same_end(command, other_command)


def test_a_dead_rank_ends_the_run(command):
    processes = start_ranks(command, 2, '--n_iter', 500)
    wait_for((command.folder / 'save' / 'rocstories' / 'checkpoint').exists, processes[0])
    processes[1].kill()
    join_ranks(processes[:1], 2)
    assert (
        command.output.splitlines()[-1]
        == 'train.py: error: another process of this run has ended; its own message says why'
    )


def test_a_full_disk_of_rank_0_ends_all(command):
    run_ranks(command, 2, '--n_iter', 1, status=2, file_size=50_000)
    assert (
        f'cannot write {command.folder}/save/rocstories/' in command.output.splitlines()[-1]
        and command.output.count('error') == 1
    )


def _signal_in_the_last_evaluation():
    evaluate = train.FineTuning.evaluate

    def with_signal(self, logger):
        if self.ranks.rank == 1 and self.n_epochs == self.args.n_iter:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.1)
        evaluate(self, logger)

    train.FineTuning.evaluate = with_signal


def test_a_signal_to_one_rank_in_the_last_evaluation(command, other_command):
    run_ranks(other_command, 2, '--n_iter', 1)
    run_ranks(command, 2, '--n_iter', 1, status=143, patch=_signal_in_the_last_evaluation)
    assert not (command.folder / 'submission').exists()
    run_ranks(command, 2, '--n_iter', 1, '--resume')
    assert_same_end(command, other_command)


def _out_of_memory_in_forward():
    """On one rank, above five stories."""
    forward = DoubleHeadModel.forward

    def failing(self, batch, lm=True):
        outputs = forward(self, batch, lm=lm)
        if lm and len(batch.label) > 5 and os.environ['RANK'] == '1':
            raise torch.OutOfMemoryError('made to fail')
        return outputs

    DoubleHeadModel.forward = failing


def test_out_of_memory_on_one_rank(command, alone):
    """Its share of ten stories takes it two steps from then on."""
    run_ranks(command, 2, '--n_batch', 20, *NO_DROPOUT, patch=_out_of_memory_in_forward)
    assert re.findall(r'out of memory: going on with steps of (\d+) stories', command.output) == [
        '10',
        '5',
    ]
    assert_same_figures(command, alone)


def _out_of_memory_in_backward():
    """On one rank, at the last gradient, when the others are ready."""
    forward = DoubleHeadModel.forward

    def fail(_):
        raise torch.OutOfMemoryError('made to fail')

    def failing(self, batch, lm=True):
        if lm and os.environ['RANK'] == '1':
            self.transformer.embed.weight.register_hook(fail)
        return forward(self, batch, lm=lm)

    DoubleHeadModel.forward = failing


def test_out_of_memory_while_gradients_are_exchanged(command):
    """What one rank has given to the sum it cannot take back: its error ends the run."""
    run_ranks(command, 2, '--n_iter', 1, status=2, patch=_out_of_memory_in_backward)
    errors = [line for line in command.output.splitlines() if 'error' in line]
    assert sorted(line.split()[2] for line in errors) == ['another', 'out'] and any(
        '--resume and a smaller --n_batch' in line for line in errors
    )


# ---------------------------------------------------------------------------------------------------------- the pieces


def test_shares_are_even_and_in_order():
    for size in range(1, 7):
        for n in range(10):
            ranks = [object.__new__(Ranks) for _ in range(size)]
            for rank, r in enumerate(ranks):
                r.rank, r.size = rank, size
            shares = [r.share(range(n)) for r in ranks]
            assert [i for share in shares for i in share] == list(range(n))
            assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_data_parallel_gives_each_device_its_batch():
    batches = [
        collate(STORIES[:3], CONFIG.first_position, False),
        collate(STORIES[3:], CONFIG.first_position, False),
    ]
    inputs, kwargs = DevicesModel(torch.nn.Linear(1, 1)).scatter(
        batches, {'lm': False}, [torch.device('cpu')] * 2
    )
    assert [torch.equal(moved.ids, batch.ids) for (moved,), batch in zip(inputs, batches)] == [
        True,
        True,
    ]
    assert kwargs == [{'lm': False}] * 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
@pytest.mark.parametrize('n_stories', [3, 4])
def test_data_parallel_on_one_device_twice(n_stories):
    """Replicate, scatter and gather: losses and gradients are those of the plain model, also when the last device gets fewer stories."""
    device = torch.device('cuda:0')
    torch.manual_seed(0)
    model = DoubleHeadModel(CONFIG)
    init_weights(model)
    model.to(device)
    stories = STORIES[:n_stories]
    whole = model(collate(stories, CONFIG.first_position, False).to(device))
    sum(out.sum() for out in whole).backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    parts = DevicesModel(model, [device, device])(
        *(collate(part, CONFIG.first_position, False) for part in (stories[:2], stories[2:]))
    )
    sum(out.sum() for out in parts).backward()
    for out, part in zip(whole, parts):
        torch.testing.assert_close(part, out, rtol=0, atol=1e-5)
    for name, p in model.named_parameters():
        torch.testing.assert_close(
            p.grad, expected[name], rtol=1e-4, atol=1e-5, msg=lambda m: f'{name}: {m}'
        )


def test_loss_meter_reads_late_and_in_order():
    meter = LossMeter(lag=2)
    for update in range(1, 5):
        meter.add(update, ['a', 'b'], torch.tensor([update, update + 1.0, 1.0, 0.0]))
        assert meter.loss == pytest.approx(update - 1.5) or update <= 2
    meter.drain()
    assert meter.loss == 4.5 and not meter.stop
    meter.add(5, ['a', 'b'], torch.tensor([1.0, 2.0, 1.0, 15.0]))
    meter.drain()
    assert meter.stop


def test_loss_meter_names_the_stories():
    meter = LossMeter(lag=0)
    with pytest.raises(InputError, match=r'update 7: the loss is nan \(stories b\)'):
        meter.add(7, ['a', 'b'], torch.tensor([1.0, float('nan'), 1.0, 0.0]))
    ids = [str(i) for i in range(20)]
    with pytest.raises(
        InputError,
        match=r"update 8: the gradients' norm is inf \(stories 0, 1, 2, 3, 4, 5, 6, 7 and 12 more\)",
    ):
        LossMeter(lag=0).add(8, ids, torch.tensor([1.0] * 20 + [float('inf'), 0.0]))
