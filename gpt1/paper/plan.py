"""Which runs of the scripts the paper's tables and figures need, and how far each is.

`make_plan` is a pure function of a `Setup` and of what is asked for. `state_of` compares the record
that a run has written (`gpt1/run/record.py`) with what the plan asks for.
"""

import json
import os
import shlex
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from datasets import TASKS, NoData, find_data
from gpt1 import ROOT
from gpt1.files import RECORD_FILE, SAMPLE_LSTM, SHAPES_FILE
from gpt1.options import PRETRAIN, TRAIN
from gpt1.paper.published import ABLATION_COLUMNS, TABLES
from gpt1.parsing import parse_pretrain_args, parse_train_args
from gpt1.report.log import split_log
from gpt1.run import record
from gpt1.run.depends import of_pretraining, of_zero_shot
from gpt1.settings import find_model_dir, is_sample_model, read_settings, shortest_path
from utils import InputError

SCRIPTS = ROOT  # the folder of the scripts that are run
ALL_DATASETS = tuple(TASKS)
RUNS_OF_TABLE = {
    **{n: tuple(dict.fromkeys(column.dataset for column in TABLES[n])) for n in TABLES},
    5: tuple(ABLATION_COLUMNS),
}
RUNS_OF_TABLE[4] += ('wnli',)  # it counts in GLUE's average
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


# --------------------------------------------------------------------------------------- the plan


@dataclass(frozen=True)
class Setup:
    """All that the plan depends on."""

    out: str
    data: dict[str, tuple[str, bool]]  # of each data set: its folder, and whether it is made up
    model_dir: str
    sample_model: bool
    n_layer: int  # of the weights in `model_dir`
    text: tuple[str, ...] = ()  # to pre-train on
    pretrained: dict[str, str] = field(default_factory=dict)  # kind -> folder of model and log
    data_dir: str = ''  # where the zero-shot data are; '': the default
    train_options: tuple[str, ...] = ()
    pretrain_options: tuple[str, ...] = ()

    def path(self, *names: str) -> str:
        return os.path.join(self.out, *names)


class PlannedRun(NamedTuple):
    """A command of the plan, and the files that it writes."""

    desc: str  # its name, unlike that of any other run
    script: str  # or `ZERO_SHOT`
    argv: tuple[str, ...]  # of an option given twice the last one counts
    record: str
    log: str = ''
    checkpoint: str = ''
    dataset: str = ''  # of a fine-tuning
    variant: str = ''  # a key of `VARIANTS`, or 'layers-3'
    seed: int = 0
    needs: tuple[str, ...] = ()  # the names of the runs that must be done before


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
    return sorted(dict.fromkeys(runs), key=lambda run: bool(run.needs))


def layers_variant(n_transfer: int, n_layer: int) -> str:
    """Return the variant that transfers so many layers. The ends are rows of table 5 too."""
    if n_transfer == -1:
        return 'scratch'
    return 'full' if n_transfer == n_layer else f'layers-{n_transfer}'


def _fine_tuning(setup: Setup, dataset: str, variant: str, seed: int) -> PlannedRun:
    desc = f'{dataset}-{variant}-{seed}'
    is_lstm = variant == 'lstm'
    argv = (
        *(SAMPLE_BATCH if setup.sample_model else ()),
        *setup.train_options,
        *('--dataset', dataset, '--desc', desc, '--seed', str(seed), '--submit'),
        *('--data_dir', setup.data[dataset][0]),
        *('--model_dir', setup.pretrained['lstm'] if is_lstm else setup.model_dir),
        *(f'--{name}_dir={setup.path(name)}' for name in ('log', 'save', 'submission', 'analysis')),
        *VARIANTS.get(variant, ('--n_transfer', variant.removeprefix('layers-'))),
    )
    folder = setup.path('save', desc)
    files = [os.path.join(folder, RECORD_FILE), setup.path('log', f'{desc}.jsonl')]
    files.append(os.path.join(folder, 'checkpoint'))
    needs = ('pretrain-lstm',) if is_lstm and setup.text else ()
    return PlannedRun(desc, TRAIN, argv, *files, dataset, variant, seed, needs)


def _zero_shot_runs(setup: Setup) -> list[PlannedRun]:
    """The runs of figure 2, right. Without pre-trainings: the weights that are there alone."""
    if setup.text:
        return [_pretraining(setup, kind) for kind in ('lstm', 'transformer')]
    if setup.pretrained:  # their logs have the scores
        return []
    path = setup.path('zero-shot.json')
    data = ('--data_dir', setup.data_dir) if setup.data_dir else ()
    argv = ('--model_dir', setup.model_dir, '--out', path, *data)
    return [PlannedRun('zero-shot', ZERO_SHOT, argv, record=path)]


def _pretraining(setup: Setup, kind: str) -> PlannedRun:
    folder = setup.pretrained[kind]
    data = ('--zero_shot_data', setup.data_dir) if setup.data_dir else ()
    planned = ('--text', *setup.text, '--out', folder, '--model', kind, '--zero_shot', *data)
    names = RECORD_FILE, 'log.jsonl', os.path.join('work', 'checkpoint')
    files = [os.path.join(folder, name) for name in names]
    return PlannedRun(f'pretrain-{kind}', PRETRAIN, (*setup.pretrain_options, *planned), *files)


def find_setup(args: Namespace) -> Setup:
    """Look for data, weights and text. Raises InputError."""
    model_dir = args.model_dir or find_model_dir()
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
        kinds = ('transformer', 'lstm')
        pretrained = {kind: os.path.join(args.out, 'pretrained', kind) for kind in kinds}
    elif sample_model:
        pretrained = {'transformer': model_dir, 'lstm': shortest_path(SAMPLE_LSTM)}
    return Setup(
        out=args.out,
        data=data,
        model_dir=model_dir,
        sample_model=sample_model,
        n_layer=read_settings(model_dir).get('n_layer', 12),
        text=tuple(args.text),
        pretrained=pretrained,
        data_dir=args.data_dir or '',
        train_options=tuple(shlex.split(args.train_options)),
        pretrain_options=tuple(shlex.split(args.pretrain_options)),
    )


# ---------------------------------------------------------------------- the options of the runs


def parse(run: PlannedRun, argv: Sequence[str]) -> Namespace:
    """Return the options of a run as its script reads them. Ends the process if one is wrong."""
    if run.script == ZERO_SHOT:
        from gpt1.paper.zero_shot import parse_args  # slow to import

        return parse_args(argv)
    return parse_train_args(argv) if run.script == TRAIN else parse_pretrain_args(argv)


def check_options(plan: Sequence[PlannedRun], setup: Setup) -> None:
    """Raise InputError if options that the user has added contradict the plan.

    Ends the process if one of them is wrong.
    """
    for script, added in ((TRAIN, setup.train_options), (PRETRAIN, setup.pretrain_options)):
        run = next((run for run in plan if run.script == script and not run.needs), None)
        if added and run:
            before, after = parse(run, run.argv), parse(run, (*run.argv, *added))
            for name, value in vars(before).items():
                if value != getattr(after, name):
                    raise InputError(
                        f'--{name} cannot be among --{script.removesuffix(".py")}_options: '
                        'paper.py gives it to each run'
                    )


# ---------------------------------------------------------------------------- the state of a run


class State(NamedTuple):
    """How far a run is: 'done', 'begun' or 'missing'; that in words; the seconds that it took."""

    kind: str
    text: str = 'missing'
    seconds: float | None = None


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


def record_of(run: PlannedRun) -> dict:
    """Return the record that a run has written; {} if there is none."""
    found = record.read_file(run.record)
    return found.get('run', {}) if run.script == ZERO_SHOT else found


def asked_of(run: PlannedRun) -> dict | None:
    """Return what the results of a run depend on, as `record` tells it. Raises InputError.

    None while the model that it needs is not there.
    """
    args = parse(run, run.argv)
    if run.needs and not os.path.exists(os.path.join(args.model_dir, SHAPES_FILE)):
        return None
    if run.script == ZERO_SHOT:
        return of_zero_shot(args, args.model_dir)
    return record.of_training(args) if run.script == TRAIN else of_pretraining(args)


def states_of(plan: Sequence[PlannedRun]) -> dict[str, State]:
    """Return how far each run is. One whose needs are not done is not done either."""
    states = {}
    for run in plan:
        waits = any(states[name].kind != 'done' for name in run.needs)
        states[run.desc] = State('missing') if waits else state_of(run)
    return states


def state_of(run: PlannedRun) -> State:
    """Return how far a run is, from what it has written. Raises InputError."""
    found = record_of(run)
    asked = asked_of(run) if found else None
    if asked is None:
        return State('missing')
    others = record.differences(found, asked)
    if others:
        return State('missing', f'to be done again: {", ".join(others)}')
    arguments, *lines = read_lines_of(run.log) or [{}]
    if arguments.get('id') != found['id']:
        lines = []
    if found['finished']:
        return State('done', 'done', lines[-1]['time'] - arguments['time'] if lines else None)
    epochs = lines[-1]['n_epochs'] if lines else 0
    return State('begun', f'{epochs:.3g} of {arguments.get("n_iter", 1)} epochs')


def print_list(plan: Sequence[PlannedRun]) -> None:
    """Print the commands with their states."""
    states = states_of(plan)
    for run in plan:
        command = shlex.join(['python', *words_of(run)])
        if run.script == ZERO_SHOT and os.getcwd() != ROOT:
            command = f'env PYTHONPATH={shlex.quote(ROOT)} {command}'
        waits = [name for name in run.needs if states[name].kind != 'done']
        if states[run.desc].kind == 'done':
            print(f'# done: {command}')
        elif waits:
            print(f'# waits for {", ".join(waits)}: {command}')
        else:
            print(f'{command}  # {states[run.desc].text}')
    n_left = sum(state.kind != 'done' for state in states.values())
    print(f'# {len(plan)} runs, {n_left} of them not done')


def words_of(run: PlannedRun) -> list[str]:
    """Return the words that follow `python` in the command of a run, with --resume if it can be.

    The path of the script is relative to the working folder.
    """
    if run.script == ZERO_SHOT:
        return ['-m', ZERO_SHOT, *run.argv]
    words = [shortest_path(os.path.join(SCRIPTS, run.script)), *run.argv]
    if os.path.exists(run.checkpoint) and state_of(run).kind != 'missing':
        words.append('--resume')
    return words
