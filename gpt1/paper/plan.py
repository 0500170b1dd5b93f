"""Which runs of the scripts the paper's tables and figures need, and how far each is.

`make_plan` is a pure function of a `Setup` and of what is asked for. `state_of` compares the record
that a run has written (`gpt1/run/record.py`) with what the plan asks for.
"""

import functools
import json
import os
import shlex
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, field

from datasets import TASKS, NoData, find_data
from gpt1 import ROOT
from gpt1.files import SAMPLE_LSTM, SHAPES_FILE
from gpt1.options import PRETRAIN, TRAIN
from gpt1.parsing import parse_pretrain_args, parse_train_args
from gpt1.report.log import split_log
from gpt1.run import record
from gpt1.settings import find_model_dir, is_sample_model, read_settings, shortest_path
from utils import InputError

SCRIPTS = ROOT  # the folder of the scripts that are run
ALL_DATASETS = tuple(TASKS)
RUNS_OF_TABLE = {
    2: ('mnli', 'snli', 'scitail', 'qnli', 'rte'),
    3: ('rocstories', 'race'),
    4: ('cola', 'sst2', 'mrpc', 'stsb', 'qqp', 'wnli'),  # WNLI counts in GLUE's average
    5: ('cola', 'sst2', 'mrpc', 'stsb', 'qqp', 'mnli', 'qnli', 'rte'),
}
LAYER_DATASETS = ('mnli', 'race')  # of figure 2, left
VARIANTS = {  # of table 5
    'full': (),
    'scratch': ('--n_transfer', '-1'),
    'no-lm': ('--lm_coef', '0'),
    'lstm': (),
}
# The sample model's settings have 2 for n_batch: with this, 16 examples make an update.
SAMPLE_BATCH = ('--n_gpu', '8')
ZERO_SHOT = 'gpt1.paper.zero_shot'  # a module; the others are scripts
# Options that say which run of the plan it is, and where it reads and writes
OF_THE_PLAN = (
    *('dataset', 'desc', 'seed', 'submit', 'data_dir', 'model_dir', 'log_dir', 'save_dir'),
    *('submission_dir', 'analysis_dir', 'text', 'out', 'model', 'zero_shot', 'zero_shot_data'),
)


# --------------------------------------------------------------------------------------- the plan


@dataclass(frozen=True)
class Setup:
    """All that the plan depends on.

    data           of each data set to use: its folder, and whether it is made up
    model_dir      the weights that are fine-tuned
    sample_model   whether they are our sample
    n_layer        of these weights
    text           to pre-train on; empty: there is none
    pretrained     where a pre-training has its model and its log, by kind: {'lstm': folder}
    data_dir       where the zero-shot data are; '': the default
    """

    out: str
    data: dict[str, tuple[str, bool]]
    model_dir: str
    sample_model: bool
    n_layer: int
    text: tuple[str, ...] = ()
    pretrained: dict[str, str] = field(default_factory=dict)
    data_dir: str = ''
    train_options: tuple[str, ...] = ()
    pretrain_options: tuple[str, ...] = ()

    def path(self, *names: str) -> str:
        return os.path.join(self.out, *names)


@dataclass(frozen=True)
class PlannedRun:
    """A command of the plan.

    desc     its name, unlike that of any other run
    script   a script or `ZERO_SHOT`, and `argv` its options
    plain    its options without those that the user has added
    dataset  of a fine-tuning, with its `variant`: a key of `VARIANTS`, or 'layers-3'; and its seed
    needs    the names of the runs that must be done before
    made_up  whether the weights come from made-up text
    """

    desc: str
    script: str
    argv: tuple[str, ...]
    dataset: str = ''
    variant: str = ''
    seed: int = 0
    needs: tuple[str, ...] = ()
    made_up: bool = False
    plain: tuple[str, ...] = ()


def make_plan(
    setup: Setup, tables: Sequence[int], figures: Sequence[int], seeds: Sequence[int]
) -> list[PlannedRun]:
    """Return the runs that some tables and figures need, each once, in the order to start them."""
    runs = _zero_shot_runs(setup) if figures else []
    with_lstm = 'lstm' in setup.pretrained
    if with_lstm and setup.text and 5 in tables and set(RUNS_OF_TABLE[5]) & set(setup.data):
        runs.append(_pretraining(setup, 'lstm'))
    ablations = [variant for variant in VARIANTS if variant != 'lstm' or with_lstm]
    parts = [(RUNS_OF_TABLE[n], ablations if n == 5 else ['full']) for n in tables]
    if figures:
        n_transfer = range(-1, setup.n_layer + 1)
        parts.append((LAYER_DATASETS, [layers_variant(n, setup.n_layer) for n in n_transfer]))
    runs += [
        _fine_tuning(setup, name, variant, seed)
        for names, variants in parts
        for name in names
        if name in setup.data
        for seed in seeds
        for variant in variants
    ]
    return list(dict.fromkeys(runs))


def layers_variant(n_transfer: int, n_layer: int) -> str:
    """Return the variant that transfers so many layers. The ends are rows of table 5 too."""
    if n_transfer == -1:
        return 'scratch'
    return 'full' if n_transfer == n_layer else f'layers-{n_transfer}'


def _fine_tuning(setup: Setup, dataset: str, variant: str, seed: int) -> PlannedRun:
    folder, _ = setup.data[dataset]
    is_lstm = variant == 'lstm'
    model_dir = setup.pretrained['lstm'] if is_lstm else setup.model_dir
    if variant.startswith('layers-'):
        options = ('--n_transfer', variant.removeprefix('layers-'))
    else:
        options = VARIANTS[variant]
    desc = f'{dataset}-{variant}-{seed}'
    before = SAMPLE_BATCH if setup.sample_model else ()
    planned = (
        *('--dataset', dataset, '--desc', desc, '--seed', str(seed), '--submit'),
        *('--data_dir', folder, '--model_dir', model_dir),
        *(
            word
            for name in ('log', 'save', 'submission', 'analysis')
            for word in (f'--{name}_dir', setup.path(name))
        ),
        *options,
    )
    argv = (*before, *setup.train_options, *planned)  # of an option given twice the last one counts
    needs = ('pretrain-lstm',) if is_lstm and setup.text else ()
    made_up = setup.sample_model and not needs
    plain = (*before, *planned)
    return PlannedRun(desc, TRAIN, argv, dataset, variant, seed, needs, made_up, plain)


def _zero_shot_runs(setup: Setup) -> list[PlannedRun]:
    """The runs of figure 2, right. Without pre-trainings: the weights that are there alone."""
    if setup.text:
        return [_pretraining(setup, kind) for kind in ('lstm', 'transformer')]
    if setup.pretrained:  # their logs have the scores
        return []
    argv = ('--model_dir', setup.model_dir, '--out', setup.path('zero-shot.json'))
    if setup.data_dir:
        argv += ('--data_dir', setup.data_dir)
    return [PlannedRun('zero-shot', ZERO_SHOT, argv)]


def _pretraining(setup: Setup, kind: str) -> PlannedRun:
    """The pre-training of a model on the text."""
    planned = (
        *('--text', *setup.text, '--out', setup.pretrained[kind], '--model', kind),
        '--zero_shot',
        *(('--zero_shot_data', setup.data_dir) if setup.data_dir else ()),
    )
    argv = (*setup.pretrain_options, *planned)
    return PlannedRun(f'pretrain-{kind}', PRETRAIN, argv, variant=kind, plain=planned)


def find_setup(args: Namespace) -> Setup:
    """Look for data, weights and text. Raises InputError."""
    model_dir = args.model_dir or find_model_dir()
    settings = read_settings(model_dir)
    data = {}
    for name in args.datasets or ALL_DATASETS:
        try:
            data[name] = find_data(name, args.data_dir, or_sample=True)
        except NoData:
            if args.datasets:
                raise
    real = {name: found for name, found in data.items() if not found[1]}
    if real and not args.datasets:
        data = real
    sample_model = is_sample_model(model_dir)
    pretrained = {}
    if args.text:
        for kind in ('transformer', 'lstm'):
            pretrained[kind] = os.path.join(args.out, 'pretrained', kind)
    elif sample_model:
        pretrained = {'transformer': model_dir, 'lstm': shortest_path(SAMPLE_LSTM)}
    return Setup(
        out=args.out,
        data=data,
        model_dir=model_dir,
        sample_model=sample_model,
        n_layer=settings.get('n_layer', 12),
        text=tuple(args.text),
        pretrained=pretrained,
        data_dir=args.data_dir or '',
        train_options=tuple(shlex.split(args.train_options)),
        pretrain_options=tuple(shlex.split(args.pretrain_options)),
    )


# ---------------------------------------------------------------------------- the state of a run


@dataclass(frozen=True)
class State:
    """How far a run is.

    kind     'done', 'begun' or 'missing'
    text     the state in words
    seconds  what it took, if it is done
    """

    kind: str
    text: str = 'missing'
    seconds: float | None = None


def log_path(run: PlannedRun, setup: Setup) -> str:
    """Return the path of the log that the script of a run writes."""
    if run.script == PRETRAIN:
        return pretraining_log(setup.pretrained[run.variant])
    return setup.path('log', f'{run.desc}.jsonl')


def pretraining_log(folder: str) -> str:
    """Return the path of the log of pretrain.py in the folder of a model."""
    return os.path.join(folder, 'log.jsonl')


def read_lines_of(path: str) -> list[dict]:
    """Return the start record and the evaluations of a log; none if it is damaged or not there."""
    try:
        with open(path, encoding='utf-8') as f:
            lines = [json.loads(line) for line in f]
    except (OSError, ValueError):
        return []
    if not lines or not all(isinstance(line, dict) for line in lines):
        return []
    log = split_log(lines)
    return [log.start, *log.evaluations]


def record_of(run: PlannedRun, setup: Setup) -> dict:
    """Return the record that a run has written; {} if there is none."""
    if run.script == ZERO_SHOT:
        found = record.read_file(setup.path('zero-shot.json')).get('run')
        return found if isinstance(found, dict) else {}
    is_pretraining = run.script == PRETRAIN
    return record.read(
        setup.pretrained[run.variant] if is_pretraining else setup.path('save', run.desc)
    )


def parse(run: PlannedRun, argv: Sequence[str]) -> Namespace:
    """Return the options of a run as its script reads them. Ends the process if one is wrong."""
    if run.script == ZERO_SHOT:
        from gpt1.paper.zero_shot import parse_args  # slow to import

        return parse_args(argv)
    return parse_train_args(argv) if run.script == TRAIN else parse_pretrain_args(argv)


def asked_of(run: PlannedRun) -> dict | None:
    """Return what the results of a run depend on, as `record` tells it. Raises InputError.

    None while the model that it needs is not there.
    """
    folder = run.argv[run.argv.index('--model_dir') + 1] if run.script != PRETRAIN else None
    if run.needs and not os.path.exists(os.path.join(folder, SHAPES_FILE)):
        return None
    files = list(os.scandir(folder)) if folder else []
    return _asked(run, tuple((file.name, file.stat().st_mtime_ns) for file in files))


@functools.cache
def _asked(run, _):
    """Read data and weights once, unless those that another run makes have changed."""
    args = parse(run, run.argv)
    if run.script == ZERO_SHOT:
        return record.of_zero_shot(args, args.model_dir)
    return record.of_training(args) if run.script == TRAIN else record.of_pretraining(args)


def check_options(plan: Sequence[PlannedRun], setup: Setup) -> None:
    """Raise InputError if options that the user has added contradict the plan.

    Ends the process if one of them is wrong.
    """
    added = {TRAIN: setup.train_options, PRETRAIN: setup.pretrain_options}
    runs = {run.script: run for run in reversed(plan) if added.get(run.script) and not run.needs}
    for script, run in runs.items():
        before, after = parse(run, run.argv), parse(run, (*run.argv, *added[script]))
        for name in OF_THE_PLAN:
            if getattr(before, name, None) != getattr(after, name, None):
                raise InputError(
                    f'--{name} cannot be among --{script.removesuffix(".py")}_options: paper.py '
                    'gives it to each run'
                )


def own_options(plan: Sequence[PlannedRun]) -> list[str]:
    """Return what the user's own options change: 'train.py: n_iter is 1, not 3'."""
    texts = []
    for run in plan:
        if run.plain in ((), run.argv) or asked_of(run) is None:
            continue
        usual, here = (record.determining(parse(run, a), run.script) for a in (run.plain, run.argv))
        names = [name for name in usual if usual[name] != here[name]]
        texts += [f'{run.script}: {n} is {here[n]}, not {usual[n]}' for n in names]
    return list(dict.fromkeys(texts))


def states_of(plan: Sequence[PlannedRun], setup: Setup) -> dict[str, State]:
    """Return how far each run is. One whose needs are not done is not done either."""
    states = {}
    for run in plan:
        waits = any(states[name].kind != 'done' for name in run.needs)
        states[run.desc] = State('missing') if waits else state_of(run, setup)
    return states


def state_of(run: PlannedRun, setup: Setup) -> State:
    """Return how far a run is, from what it has written. Raises InputError."""
    found = record_of(run, setup)
    if not found:
        return State('missing')
    asked = asked_of(run)
    if asked is None:
        return State('missing')
    others = record.differences(found, asked)
    if others:
        return State('missing', f'to be done again: {", ".join(others)}')
    arguments, *evaluations = read_lines_of(log_path(run, setup)) or [{}]
    is_of_run = arguments.get('id') == found['id']
    if found['finished']:
        seconds = evaluations[-1]['time'] - arguments['time'] if is_of_run and evaluations else None
        return State('done', 'done', seconds)
    epochs = evaluations[-1].get('n_epochs', 0) if is_of_run and evaluations else 0
    return State('begun', f'{epochs:.3g} of {arguments.get("n_iter", 1)} epochs')


def format_seconds(seconds: float) -> str:
    """'40 s', '12 min' or '3 h 20 min'."""
    if seconds < 60:
        return f'{seconds:.0f} s'
    minutes = round(seconds / 60)
    return f'{minutes} min' if minutes < 60 else f'{minutes // 60} h {minutes % 60} min'


def print_list(plan: Sequence[PlannedRun], setup: Setup) -> None:
    """Print the commands with their states."""
    states = states_of(plan, setup)
    for run in plan:
        command = ['python', *words_of(run, setup)]
        if run.script == ZERO_SHOT and os.getcwd() != ROOT:
            command = ['env', f'PYTHONPATH={ROOT}', *command]
        command = shlex.join(command)
        waits = [name for name in run.needs if states[name].kind != 'done']
        if states[run.desc].kind == 'done':
            print(f'# done: {command}')
        elif waits:
            print(f'# waits for {", ".join(waits)}: {command}')
        else:
            print(f'{command}  # {states[run.desc].text}')
    n_left = sum(state.kind != 'done' for state in states.values())
    print(f'# {len(plan)} runs, {n_left} of them not done')


def words_of(run: PlannedRun, setup: Setup) -> list[str]:
    """Return the words that follow `python` in the command of a run, with --resume if it can be.

    The path of the script is relative to the working folder.
    """
    if run.script == ZERO_SHOT:
        return ['-m', ZERO_SHOT, *run.argv]
    words = [shortest_path(os.path.join(SCRIPTS, run.script)), *run.argv]
    folder = setup.path('save', run.desc)
    if run.script == PRETRAIN:
        folder = os.path.join(setup.pretrained[run.variant], 'work')
    has_checkpoint = os.path.exists(os.path.join(folder, 'checkpoint'))
    if has_checkpoint and state_of(run, setup).kind != 'missing':
        words.append('--resume')
    return words
