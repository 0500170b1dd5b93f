"""An update is the same on one, two, three or four processes, and with DataParallel."""

import itertools
import os
import platform
import re
import resource
import signal
import socket
import sys
import time

import numpy as np
import pytest
import torch
import torch.distributed.run
from conftest import PROCESSES, ROOT, Command
from test_resume import NO_DROPOUT, assert_same_end, checkpoint_of, wait_for
from tiny_models import encoder, random_model

import train
from datasets import TASKS
from gpt1.run import parallel
from gpt1.run.encoding import encode_dataset
from gpt1.run.parallel import Ranks, find_devices, keep_freed_memory, predict, step_cuts
from gpt1.run.progress import LossMeter
from gpt1.run.training import Job
from gpt1.tasks.task import Example
from model_pytorch import DoubleHeadModel
from utils import InputError

CPU = torch.device('cpu')


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def rank_environments(n):
    """The environment that torchrun gives each of n processes."""
    common = dict(WORLD_SIZE=str(n), MASTER_ADDR='127.0.0.1', MASTER_PORT=str(free_port()))
    return [{**common, 'RANK': str(rank), 'LOCAL_RANK': str(rank)} for rank in range(n)]


def start_ranks(command, n, *options, **start):
    return [command.start(*options, **start, **environment) for environment in rank_environments(n)]


def join_ranks(processes, status):
    for process in processes:
        process.join(240)
    exitcodes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    assert exitcodes == [status] * len(processes)


def run_ranks(command, n, *options, status=0, **start):
    """`train.py` in n processes, as torchrun starts them."""
    join_ranks(start_ranks(command, n, *options, **start), status)


def assert_same_scores(command, alone):
    for line, other in zip(command.log()[1:], alone.log()[1:], strict=True):
        assert line == pytest.approx(other, abs=1e-5)
    path = ('submission', 'ROCStories.tsv')
    assert command.read(*path) == alone.read(*path)


def _out_of_memory_in_forward():
    """One rank runs out of memory with more than three examples."""
    parallel.WORK_OF_A_STEP = 0  # as on a GPU: on a CPU, the steps of a small model are joined
    forward = DoubleHeadModel.forward

    def failing(self, batch, lm=True):
        outputs = forward(self, batch, lm=lm)
        if lm and len(batch.clf) > 3 and os.environ['RANK'] == '1':
            raise torch.OutOfMemoryError('made to fail')
        return outputs

    DoubleHeadModel.forward = failing


def test_out_of_memory_on_one_rank(command, tmp_path_factory):
    """It does its share of the five steps of four examples in steps of two.

    The update is that of one process that takes all examples in one step.
    """
    alone = Command(tmp_path_factory.mktemp('alone'))
    alone.run('--n_iter', 2, '--n_batch', 20, *NO_DROPOUT)
    options = ('--n_iter', 2, '--n_batch', 4, '--n_gpu', 5, *NO_DROPOUT)
    run_ranks(command, 3, *options, patch=_out_of_memory_in_forward)
    assert re.findall(r'continuing with steps of (\d+) examples', command.output) == ['2']
    assert command.output.count('data  ') == 1  # one rank prints
    assert_same_scores(command, alone)
    state, expected = (
        torch.load(c.folder / 'save' / 'rocstories' / 'best_params', weights_only=True)
        for c in (command, alone)
    )
    for name, value in expected.items():
        if name != 'task_head.linear.bias':  # only rounding changes it
            atol = 1e-3 if name.endswith('c_attn.b') else 2e-5
            torch.testing.assert_close(state[name], value, rtol=0, atol=atol, msg=name)
    assert command.output.count('data  ') == 1  # one rank prints


def _check_recording(output, environment):
    os.environ.update(environment)
    handle = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(handle, 1)
    test = os.path.join(ROOT, 'tests', 'test_openai_golden.py') + '::test_every_update'
    sys.exit(pytest.main(['-q', '-n0', '-p', 'no:cacheprovider', test]))


@pytest.mark.parametrize('n', [3, pytest.param(4, marks=pytest.mark.slow)])
def test_ranks_against_the_recorded_run(n, tmp_path):
    """Each rank runs the test of the recording; the ranks do its updates together."""
    processes = [
        PROCESSES.Process(target=_check_recording, args=(str(tmp_path / 'output'), environment))
        for environment in rank_environments(n)
    ]
    for process in processes:
        process.start()
    join_ranks(processes, 0)
    assert (tmp_path / 'output').read_text().count('1 passed') == n


def test_more_ranks_than_examples(command):
    """A rank without an example takes part in the sum of the gradients."""
    run_ranks(command, 3, '--n_batch', 2, '--n_iter', 1, '--save_every', 0, *NO_DROPOUT)
    assert command.log()[1]['n_updates'] == 40


def test_with_dropout_the_number_of_ranks_changes_nothing(command, other_command):
    """A step draws its masks from its place in the batch, on whatever process it runs."""
    options = ('--n_iter', 1, '--n_batch', 4, '--n_gpu', 4)
    other_command.run(*options)
    run_ranks(command, 3, *options)
    assert_same_scores(command, other_command)


RUN = ('--n_iter', 2, '--save_every', 2)


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
    """A run of two processes."""
    command = Command(tmp_path_factory.mktemp('undisturbed'))
    run_ranks(command, 2, *RUN)
    return command


def _signal_in_the_last_evaluation():
    evaluate = train.FineTuning.evaluate

    def with_signal(self, trainer):
        if self.ranks.rank == 1 and trainer.n_updates == trainer.n_updates_total:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.1)
        return evaluate(self, trainer)

    train.FineTuning.evaluate = with_signal


def test_a_signal_to_one_rank_stops_all_at_the_same_update(command, undisturbed):
    """Within an epoch; then, in the run that is resumed, in the last evaluation."""
    processes = start_ranks(command, 2, *RUN)
    wait_for(checkpoint_of(command).exists, processes[0])
    os.kill(processes[1].pid, signal.SIGTERM)
    join_ranks(processes, 143)
    run_ranks(command, 2, *RUN, '--resume', status=143, patch=_signal_in_the_last_evaluation)
    assert not (command.folder / 'submission').exists()
    run_ranks(command, 2, *RUN, '--resume')
    assert_same_end(command, undisturbed)


def test_input_errors_end_all_ranks(command):
    join_ranks(start_ranks(command, 2, '--n_valid', 112), 2)
    assert command.output.count('\n') == 1


TWO_PROCESSES = ('--standalone', '--nproc_per_node', '2')


# train.py that notes its processes. It is slow when there is a file `slow`, and ends late when
# another process is lost.
SLOW_SCRIPT = """
import os, sys, time
import train, utils
from gpt1.run import training

def slowly(call):
    def slow(*args):
        time.sleep(3 * os.path.exists('slow'))
        return call(*args)
    return slow

with open(os.environ['RANK'], 'a') as f:
    print(os.getpid(), file=f)
training.Saver.save = slowly(training.Saver.save)
training.Trainer.update = slowly(training.Trainer.update)
status = train.main(sys.argv[1:])
time.sleep(60 * (status == 2))
if status:
    utils.leave(status)
"""


def _torchrun(folder, output, argv):
    """torchrun, which forks its processes from this one, since this one has imported all."""
    os.chdir(folder)
    handle = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    sys.argv = ['slow.py']
    torch.distributed.run.main(['--run-path', '--start-method', 'fork', *argv])


def slow_torchrun(command, *options, max_restarts=0, machine=TWO_PROCESSES):
    script = command.folder / 'slow.py'
    script.write_text(SLOW_SCRIPT)
    argv = ['--monitor-interval', '0.1', '--max-restarts', str(max_restarts), *machine]
    argv += [str(script), *command.argv(*options)]
    args = (str(command.folder), str(command.folder / 'output'), argv)
    agent = PROCESSES.Process(target=_torchrun, args=args)
    agent.start()
    return agent


def end(*agents):
    """Wait for torchrun's end."""
    for agent in agents:
        agent.join(240)
    exitcodes = [agent.exitcode for agent in agents]
    for agent in agents:
        agent.terminate()
    return exitcodes


def signal_rank(command, agent, number, slow=False):
    """Send a signal to rank 1 once there is a checkpoint."""
    wait_for(checkpoint_of(command).exists, agent)
    if slow:
        (command.folder / 'slow').touch()
        time.sleep(0.7)  # the next update has begun
    os.kill(int((command.folder / '1').read_text().split()[-1]), number)


def test_torchrun_does_not_disturb_the_checkpoint(command):
    """As soon as one rank has left, torchrun sends SIGTERM to the others."""
    agent = slow_torchrun(command, '--n_iter', 100)
    signal_rank(command, agent, signal.SIGTERM, slow=True)
    end(agent)
    assert 'stopped; the same command with --resume continues' in command.output
    checkpoint, slow = checkpoint_of(command), command.folder / 'slow'
    assert checkpoint.stat().st_mtime > slow.stat().st_mtime
    assert not list(checkpoint.parent.glob('.*'))


def test_two_machines_restart_as_one(command, undisturbed):
    """The torchrun of the second one counts a failure, that of the first a changed membership."""
    machine = '--nnodes 2 --nproc_per_node 1 --rdzv_backend c10d --local-addr 127.0.0.1'.split()
    machine += ['--rdzv_endpoint', f'127.0.0.1:{free_port()}']
    agents = [slow_torchrun(command, *RUN, max_restarts=2, machine=machine) for _ in range(2)]
    signal_rank(command, agents[0], signal.SIGKILL)
    assert end(*agents) == [0, 0], command.output
    assert 'resumed after update' in command.output
    assert_same_end(command, undisturbed)
    for rank in '01':
        assert len((command.folder / rank).read_text().split()) == 2  # attempts


def test_a_restart_continues_what_has_begun(monkeypatch):
    """Not the checkpoint of an earlier run, which the first attempt refused to touch."""
    store = torch.distributed.TCPStore('127.0.0.1', 0, is_master=True)
    environment = dict(rank_environments(2)[0], MASTER_PORT=str(store.port))
    environment |= dict(TORCHELASTIC_USE_AGENT_STORE='True', TORCHELASTIC_RESTART_COUNT='1')
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    ranks = Ranks([CPU])
    assert not ranks.restarted
    ranks.begin()
    monkeypatch.setenv('TORCHELASTIC_RESTART_COUNT', '0')  # of another machine
    assert Ranks([CPU]).restarted


def test_incomplete_variables_of_torchrun_are_an_error(monkeypatch):
    """But a rank that another launcher left counts for nothing."""
    monkeypatch.setenv('RANK', '1')
    for size in ('', '1'):
        monkeypatch.setenv('WORLD_SIZE', size)
        assert Ranks([CPU]).first
    monkeypatch.setenv('WORLD_SIZE', '2')
    with pytest.raises(InputError, match='start with torchrun, or unset WORLD_SIZE'):
        Ranks([CPU])


def _full_disk():
    """No file can become large."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))


def test_a_full_disk_of_rank_0_ends_all(command):
    run_ranks(command, 2, '--n_iter', 1, status=2, patch=_full_disk)
    assert f'cannot write {command.folder}/save/rocstories/' in command.output.splitlines()[-1]
    assert command.output.count('error') == 1


def _out_of_memory_in_backward():
    """One rank runs out of memory at the last gradient, when the others are ready."""
    forward = DoubleHeadModel.forward

    def fail(_):
        raise torch.OutOfMemoryError('made to fail')

    def failing(self, batch, lm=True):
        if lm and os.environ['RANK'] == '1':
            self.transformer.embed.weight.register_hook(fail)
        return forward(self, batch, lm=lm)

    DoubleHeadModel.forward = failing


def test_out_of_memory_while_gradients_are_exchanged(command):
    """A rank cannot take back what it added to the sum, so its error ends the run."""
    run_ranks(command, 2, '--n_iter', 1, status=2, patch=_out_of_memory_in_backward)
    errors = [line for line in command.output.splitlines() if 'error' in line]
    assert sorted(line.split()[2] for line in errors) == ['another', 'out']
    assert any('--resume and a smaller --n_batch' in line for line in errors)


@pytest.mark.parametrize(
    'n_found, device, expected',
    [
        (0, 'auto', 'cpu'),
        (3, 'cpu', 'cpu'),
        (3, 'auto', 'cuda:0 cuda:1'),
        (3, 'cuda', 'cuda:0 cuda:1'),
        (1, 'auto', 'cuda:0'),
        (3, 'cuda:2', 'cuda:2'),
        (0, 'cuda', '--device cuda: the number of CUDA devices here is 0'),
        (3, 'cuda:3', '--device cuda:3: the number of CUDA devices here is 3'),
        *[
            (3, name, f'--device {name}: ')
            for name in ('gpu', 'cuda:', 'cuda:-1', 'cpu:0', 'cuda:٣')
        ],
    ],
)
def test_devices_by_name(monkeypatch, n_found, device, expected):
    """At most two: `n_gpu`. On a GPU, the path of a CPU is an error, and one that nobody knows."""
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: n_found > 0)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: n_found)
    try:
        found = ' '.join(map(str, find_devices(device, 2)))
    except InputError as error:
        found = str(error)
    assert found.startswith(expected)
    if found.startswith('cuda'):
        for path, message in (('cpu', 'GPT1_PATH=cpu .* --device cpu'), ('x', "GPT1_PATH is 'x'")):
            monkeypatch.setenv('GPT1_PATH', path)
            with pytest.raises(InputError, match=message):
                find_devices(device, 2)


def count_page_faults():
    """End with status 0 if freed memory is used again without asking the system for it."""
    keep_freed_memory()
    for i in range(40):
        if i == 30:  # glibc has found all holes by then
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(1 << 24)  # 64 MB: 16,384 pages
    raise SystemExit(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before > 1000)


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='a setting of glibc')
def test_freed_memory_is_kept():
    process = PROCESSES.Process(target=count_page_faults)
    process.start()
    process.join()
    assert process.exitcode == 0


def test_step_cuts():
    """All items once, whatever steps each rank can do. They are the same for any number of ranks,

    unless there are more ranks than steps or the memory of one is short.
    """
    for n, size, n_ranks in itertools.product(range(1, 13), range(1, 6), range(1, 5)):
        own_sizes = itertools.product(range(1, size + 1), repeat=n_ranks)
        for sizes in [*itertools.islice(own_sizes, 200), (size,) * n_ranks]:
            shares = [step_cuts(n, size, own, rank, n_ranks) for rank, own in enumerate(sizes)]
            cuts = [cut for share in shares for cut in share]
            assert [i for cut in cuts for i in range(n)[cut]] == list(range(n))
            for own, share in zip(sizes, shares):
                assert all(0 < cut.stop - cut.start <= own for cut in share)
            assert sum(map(bool, shares)) == min(n, n_ranks)
        if -(-n // size) >= n_ranks:
            assert cuts == step_cuts(n, size, size, 0, 1)


def test_loss_meter_names_the_examples():
    meter = LossMeter(Job(), log_every=1, lag=0)
    with pytest.raises(InputError, match=r'update 7: the loss is nan \(items b\)'):
        meter.add(7, ['a', 'b'], torch.tensor([1.0, float('nan'), 1.0, 0.0]), 0.1)
    expected = r"update 8: the gradients' norm is inf \(items 0, 1, 2, .* 7 and 12 more\)"
    with pytest.raises(InputError, match=expected):
        meter.add(8, range(20), torch.tensor([1.0] * 20 + [float('inf'), 0.0]), 0.1)


def test_predictions_are_those_of_each_example_alone():
    """Of questions with two to four choices. Those of similar length form a batch."""
    random, model = np.random.RandomState(0), random_model(TASKS['race'])
    words = 'Ella had no tape at night and went to the store'.split()

    def text(longest):
        return ' '.join(random.choice(words, random.randint(1, longest)))

    def logits_of(examples):
        return predict(model, encode_dataset(examples, encoder(), TASKS['race'], 60))

    questions = []
    for i in range(150):
        texts = (text(30), *(text(6) for _ in range(random.randint(3, 6))))
        questions.append(Example(str(i), texts, 0))
    logits = logits_of(questions)
    assert logits.shape == (150, 4)
    for i in range(0, 150, 7):
        alone = logits_of([questions[i]])[0]
        torch.testing.assert_close(logits[i, : len(alone)], alone, rtol=0, atol=1e-4)
        assert (logits[i, len(alone) :] == -torch.inf).all()


def test_small_steps_are_joined_on_a_cpu():
    join_steps = Ranks([CPU]).join_steps
    assert join_steps(4, 32, 80, 128) == 16  # the sample
    assert join_steps(8, 64, 80, 768) == 8  # the paper's model
    assert join_steps(3, 7, 10, 16) == 7  # no more than the update
    assert Ranks([torch.device('cuda')]).join_steps(4, 32, 80, 128) == 4


@pytest.mark.parametrize(
    'n_embd, cores, threads, text',
    [
        (768, 8, 8, '8 threads (all cores)'),
        (128, 8, 5, '5 threads (of 8: the steps are small)'),
        (768, 1, 1, '1 thread (all cores)'),
    ],
)
def test_threads_by_the_work_of_a_step(monkeypatch, n_embd, cores, threads, text):
    used = []
    monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
    monkeypatch.setattr(torch, 'get_num_threads', lambda: 8)
    monkeypatch.setattr(torch, 'set_num_threads', used.append)
    monkeypatch.setattr(parallel, 'available_cores', lambda: cores)
    ranks = Ranks([CPU])
    ranks.use_threads(640, n_embd)
    assert used == [threads]
    assert ranks.describe('fp32') == f'CPU, {text}; fp32'
    monkeypatch.setenv('OMP_NUM_THREADS', '8')  # the user's number counts
    ranks.use_threads(640, n_embd)
    assert used == [threads, 8] and 'OMP_NUM_THREADS' in ranks.describe('bf16')
