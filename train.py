"""Fine-tune GPT-1 on a task of the paper, or on your own data, as OpenAI's program does.

    python train.py --dataset rocstories --submit --analysis --n_gpu 8

The file reads top to bottom: the input, the job that `training.Trainer` does, and the run: read,
encode, load, fine-tune and keep the best parameters, predict, analyse.
"""

import os
import sys

# With PYTHONSAFEPATH, Python does not look for modules beside the script.
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import gpt1.startup  # noqa: F401 (before the import of any library)

from datasets import NAMES, find_data, make_sample
from gpt1.options import NOT_OF_MODEL
from gpt1.parsing import parse_train_args
from gpt1.settings import check_no_weights, is_openai_model, is_sample_model, model_settings
from gpt1.tasks.metrics import is_better
from gpt1.tasks.task import decode, write_submission
from utils import InputError, exit_status, leave


def parse_args(argv=None):
    """Parse the command line and find the data. Ends the process if something is wrong."""
    args = parse_train_args(argv, NAMES)
    try:
        args.data_dir, is_sample = find_data(args.dataset, args.data_dir)
    except InputError as error:
        print(f'train.py: error: {error}', file=sys.stderr)
        sys.exit(2)
    args.sample = []  # what a reader of the results must know first
    if is_sample:
        args.sample.append('sample data, not the real ones: do not compare with the paper')
    if is_sample_model(args.model_dir):
        args.sample.append("sample model, not OpenAI's weights: do not compare with the paper")
    elif args.n_transfer >= 0 and not is_openai_model(args.model_dir):
        args.sample.append("own model, not OpenAI's weights: do not compare with the paper")
    return args


ARGS = parse_args() if __name__ == '__main__' else None  # before PyTorch, which is slow to import

import contextlib
import shlex
from dataclasses import dataclass

import numpy as np
import torch

from gpt1.lstm import describe_source, make_config
from gpt1.ops.batches import collate, iter_data
from gpt1.report.intervals import noise_of, results
from gpt1.report.log import best_evaluation, log_name, split_log
from gpt1.report.predictions import Sets, decode_sets, save_predictions
from gpt1.report.report import print_metrics, print_next_step, write_report
from gpt1.run import record
from gpt1.run.checkpoint import find_checkpoint, only_run, same_form
from gpt1.run.data_cache import load_data
from gpt1.run.encoding import EncodedData, EncodedDataset, array_hash
from gpt1.run.parallel import Ranks, StepSize, find_devices, keep_freed_memory, predict
from gpt1.run.training import Job, Trainer
from gpt1.tasks.task import Data, Task
from gpt1.weights.huggingface import open_weights
from gpt1.weights.openai import load_openai_pretrained_model
from gpt1.weights.parameters import load_state, read_parameters, save_settings, sign
from gpt1.weights.vocabulary import open_encoder, save_vocabulary
from loss import JointLoss, task_losses
from model_pytorch import DoubleHeadModel, init_weights, special_rows
from opt import OpenAIAdam
from text_utils import TextEncoder
from utils import ResultLogger, check_tensorboard, check_writable, format_table, whole_file

EVALUATE_AFTER = (1000, 2000, 4000, 8000, 16000, 32000)  # updates, in the first epoch
ADAM_OPTIONS = ('lr', 'b1', 'b2', 'e', 'l2', 'vector_l2', 'max_grad_norm', 'schedule_t')
TRUNK_DROPOUT = ('embd_pdrop', 'attn_pdrop', 'resid_pdrop')
DROPOUT = (*TRUNK_DROPOUT, 'clf_pdrop')


@dataclass
class Inputs:
    """What a run reads: the task, its data set as text and encoded, and the encoder."""

    task: Task
    text: Data
    encoded: EncodedData
    encoder: TextEncoder
    n_vocab: int
    n_ctx: int
    about: dict  # all that the results depend on, see `record.of_training`

    def __getstate__(self):  # what all ranks need
        return {**vars(self), 'encoder': None, 'text': None, 'about': None}


def read_inputs(args) -> Inputs:
    """Check the output and the input, in order of cost, and encode it."""
    folder = os.path.join(args.save_dir, args.desc)
    folders = [args.log_dir, folder]
    if args.submit:
        folders += [args.submission_dir, os.path.join(args.analysis_dir, args.desc)]
    for path in folders:
        check_writable(path)
    check_no_weights(folder, 'choose another --desc or --save_dir')
    if args.tensorboard:
        check_tensorboard(os.path.join(args.log_dir, args.desc))
    transfers = args.n_transfer >= 0
    encoder = open_encoder(args.model_dir, args.encoder_path, args.bpe_path, transfers)
    if transfers:
        open_weights(args.model_dir).check(encoder.n_vocab, args.n_embd, args.n_transfer)
    make_sample(args.dataset, args.data_dir)
    about = record.of_training(args)  # before the files are read
    task, text, encoded = load_data(args, encoder)
    n_train, n_batch = len(encoded.train), args.n_batch * args.n_gpu
    if n_train < n_batch:
        raise InputError(
            f'there are {n_train:,} training examples, too few for one batch of '
            f'n_batch * n_gpu = {n_batch}; lower --n_batch or --n_gpu'
        )
    # The original lowers n_ctx to the longest sequence. New texts for a model of one's own data
    # may be longer.
    n_ctx = args.n_ctx if args.dataset == 'custom' else encoded.longest
    return Inputs(task, text, encoded, encoder, encoder.n_vocab, n_ctx, about)


class FineTuning(Job):
    """The job of fine-tuning: its examples are the items of `Trainer`."""

    unit = 'examples'

    def __init__(self, args, inputs: Inputs, model: DoubleHeadModel, ranks: Ranks):
        self.args, self.task, self.model, self.ranks = args, inputs.task, model, ranks
        self.encoder = inputs.encoder
        self.train, self.valid = inputs.encoded.train, inputs.encoded.valid
        self.batch_size = args.n_batch * args.n_gpu
        self.updates_per_epoch = len(self.train) // self.batch_size
        self.speed = self.batch_size, self.unit
        self.columns = {'n_epochs': 'd', 'n_updates': 'd', 'tr_cost': '.3f', 'va_cost': '.3f'}
        for name in map(log_name, self.task.metrics):
            self.columns |= {f'tr_{name}': '.2f', f'va_{name}': '.2f'}
        # The classifier's masks are per example: they are the same in both kinds of rows.
        self.share_context = args.share_context or not has_dropout(args, TRUNK_DROPOUT)
        self.rows = 'shared rows' if self.share_context else 'separate rows'
        if model.config.separate_rows:
            self.share_context, self.rows = False, 'separate rows (an LSTM reads no others)'
        self.steps = StepSize()
        self.best_score = None  # nothing is kept yet
        self.record = {}

    def batches(self, epoch):
        """Shuffle as the original does: NumPy's state draws the special rows, then each epoch."""
        random_state = np.random.RandomState(self.args.seed)
        special_rows(self.args.n_embd, random_state)
        for _ in range(epoch):
            random_state.shuffle(np.arange(len(self.train)))
        return iter_data(len(self.train), self.batch_size, random_state)

    def collate(self, items):
        trees = [self.train.tree(i) for i in items]
        first_position = self.model.config.first_position
        return collate(trees, first_position, self.share_context, self.train.targets[items])

    def names(self, items):
        return [self.train.names[i] for i in items]

    def due(self, n_updates):
        if n_updates < self.updates_per_epoch:
            return n_updates in EVALUATE_AFTER
        return n_updates % self.updates_per_epoch == 0

    def evaluate(self, trainer):
        """Measure cost and metrics; with --submit, keep the parameters if they are the best."""
        # The original measures as many training examples as it sets aside.
        train = self.measure({'train': self.train.first(self.args.n_valid or 374)})
        valid = self.measure(self.valid)
        n_updates = trainer.n_updates
        line = {'n_epochs': n_updates // self.updates_per_epoch, 'n_updates': n_updates}
        for name, value in train.items():
            line |= {f'tr_{name}': value, f'va_{name}': valid[name]}
        line |= {f'va_{name}': value for name, value in valid.items()}  # also single sets
        first = valid[log_name(self.task.metrics[0])]
        if self.args.submit and is_better(first, self.best_score):
            self.best_score = first
            self.save_best(trainer)
        return line

    def measure(self, sets: dict[str, EncodedDataset]) -> dict[str, float]:
        """Return the cost and the metrics of the first set, or of all together if they are pooled.

        The scores of single sets follow as `<metric>_<set>`.
        """
        logits = {name: self.predict(data) for name, data in sets.items()}
        names = list(sets)
        groups = {'': names if self.task.pooled else names[:1]}
        if len(names) > 1:
            groups |= {f'_{n}': [n] for n in names if self.task.pooled or n != names[0]}
        result = {}
        for suffix, group in groups.items():
            scores = torch.cat([logits[name] for name in group])
            targets = np.concatenate([sets[name].targets for name in group])
            labels = np.concatenate([sets[name].labels for name in group])
            result[f'cost{suffix}'] = task_losses(scores, torch.from_numpy(targets)).mean().item()
            predictions = decode(self.task, scores.numpy())
            for metric in self.task.metrics:
                name = log_name(metric) + suffix
                result[name] = self.task.score(metric, labels, predictions)
        return result

    def state(self):
        return {'best': self.best_score}

    def load_state(self, state):
        if 'best' in state:
            self.best_score = None if state['best'] is None else float(state['best'])
        else:  # of an earlier version, which kept nothing at 0 or below
            self.best_score = float(state['best_score']) or None

    def predict(self, data: EncodedDataset) -> torch.Tensor:
        """Return the logits of all examples, on every rank."""
        return predict(self.model, data, self.ranks, self.args.precision, self.steps)

    def path(self, name: str) -> str:
        """Return the path of a file of this run."""
        return os.path.join(self.args.save_dir, self.args.desc, name)

    def save_best(self, trainer: Trainer) -> None:
        """Keep the parameters, and beside them all that is needed to use them elsewhere."""
        if self.ranks.first:
            folder, run = self.path(''), self.record['id']
            save_vocabulary(self.encoder, folder)
            save_settings(folder, self.args, self.encoder, self.task, run=run)
            trainer.saver.save(self.path('best_params'), self.model.state_dict())

    def check_best(self) -> None:
        """Raise InputError unless a resumed run finds the best parameters whole."""
        if not self.args.submit or self.best_score is None:
            return
        path = self.path('best_params')
        try:
            if not same_form(read_parameters(path)[0], self.model.state_dict()):
                raise InputError(f'{path} does not hold the parameters of this model')
        except InputError as error:
            hint = 'put it back, or start again without --resume'
            raise InputError(f'{error}; it held the best parameters so far: {hint}') from error

    def load_best(self, trainer: Trainer) -> None:
        """Load the best parameters into the model, on every rank."""
        trainer.saver.wait()
        path = self.path('best_params')
        self.ranks.from_first(lambda: load_state(self.model, read_parameters(path)[0], path))
        self.ranks.copy_from_first(self.model.parameters())


def has_dropout(args, names=DROPOUT) -> bool:
    """Return whether the model uses dropout."""
    return any(getattr(args, name) > 0 for name in names if name not in NOT_OF_MODEL[args.model])


def run(args) -> None:
    """Read, encode, load, fine-tune, predict, analyse."""
    devices = find_devices(args.device, args.n_gpu, args.precision)
    keep_freed_memory()
    if args.deterministic:
        os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')
        torch.use_deterministic_algorithms(True)
    with Ranks(devices) as ranks, contextlib.ExitStack() as stack:  # which holds the folder's lock
        args = ranks.from_first(lambda: args)
        inputs = ranks.from_first(lambda: read_inputs(args))
        job = FineTuning(args, inputs, make_model(args, inputs, ranks), ranks)
        trainer = make_trainer(args, job, inputs)
        folder, path = job.path(''), job.path('checkpoint')
        ranks.from_first(lambda: stack.enter_context(only_run(folder)))
        resume = args.resume or ranks.restarted
        finished = ranks.from_first(
            lambda: resume and record.is_finished(folder, path, lambda: inputs.about)
        )
        if finished:
            return
        checkpoint = ranks.from_first(lambda: find_checkpoint(path, resume))
        lines = trainer.resume(checkpoint, path) if checkpoint else []
        del checkpoint
        ranks.from_first(job.check_best)
        logger = begin(args, inputs, job, trainer, lines) if ranks.first else None
        trainer.run(logger, path)
        predicted = {}
        if args.submit:
            job.load_best(trainer)
            predicted = predict_sets(inputs, job)
        if logger:
            finish(args, inputs, job, logger, predicted)
            trainer.remove_checkpoint(path)


def begin(args, inputs: Inputs, job: FineTuning, trainer: Trainer, lines: list) -> ResultLogger:
    """Print what the run is, and begin its record and its log, which is returned.

    lines  the log of the run that is resumed. Without one, all of an earlier run is set aside
    """
    if not lines:
        record.set_aside(args.desc, args.log_dir, args.save_dir, args.analysis_dir)
    job.ranks.begin()
    job.record = record.begin(job.path(''), inputs.about, lines)
    n_parameters = sum(p.numel() for p in job.model.parameters())
    options = ', '.join(f'{name} {value}' for name, value in model_settings(args).items())
    settings = os.path.join(args.model_dir, 'settings.json')
    if os.path.exists(settings):
        options += f'; those that were not given are from {settings}'
    table = [
        *[('note', note) for note in args.sample],
        ('data', f'{inputs.task.title}: {inputs.encoded.describe(args.n_ctx)}'),
        *[('', note) for note in inputs.text.notes],
        ('model', f'{n_parameters:,} parameters: {describe_source(args)}'),
        ('options', options),
    ]
    path = os.path.join(args.log_dir, f'{args.desc}.jsonl')
    facts = {'id': job.record['id'], **vars(args), 'n_cut': inputs.encoded.n_cut}
    return trainer.begin(path, lines, facts, table)


def make_model(args, inputs: Inputs, ranks: Ranks) -> DoubleHeadModel:
    """Return the model at the start: loaded as --n_transfer says, the rest drawn."""
    config = make_config(vars(args), n_vocab=inputs.n_vocab, n_ctx=inputs.n_ctx)
    task = inputs.task
    torch.manual_seed(args.seed)
    model = DoubleHeadModel(config, task.layout, task.n_out)
    if ranks.first:
        sign(model, args, task, inputs.encoder)
    ranks.from_first(lambda: fill(args, model))
    return model.to(ranks.devices[0])


def fill(args, model: DoubleHeadModel) -> None:
    loaded = []
    if args.n_transfer >= 0:
        # The first use of NumPy's random state; the order of the epochs follows.
        special = special_rows(args.n_embd, np.random.RandomState(args.seed))
        weights = open_weights(args.model_dir)
        loaded = load_openai_pretrained_model(model, weights, special, args.n_transfer)
    init_weights(model, loaded)


def make_trainer(args, job: FineTuning, inputs: Inputs) -> Trainer:
    """Return the loop that does the job."""
    model, ranks = job.model, job.ranks
    same, size = 'the update stays the same', args.n_batch
    if has_dropout(args):
        same += ", except for dropout's masks"
    else:
        size = ranks.join_steps(size, job.batch_size, inputs.n_ctx, args.n_embd)
    ranks.use_threads(size * inputs.n_ctx, args.n_embd)
    opt = OpenAIAdam(
        model.parameters(),
        schedule=args.lr_schedule,
        warmup=args.lr_warmup,
        t_total=job.updates_per_epoch * args.n_iter,
        **{name: getattr(args, name) for name in ADAM_OPTIONS},
    )
    steps = StepSize(size, job.unit, 'a smaller --n_batch and a larger --n_gpu', same)
    known = ranks.from_first(lambda: identity(args, job, inputs))
    return Trainer(job, JointLoss(model, args.lm_coef), opt, steps, known)


def identity(args, job: FineTuning, inputs: Inputs) -> dict:
    """Return what a run must have in common with one that it resumes."""
    arrays = []
    for part in inputs.encoded.sets.values():
        arrays += [part.ids, part.lengths, part.targets]
    parameters = [p.detach().cpu().numpy() for p in job.model.parameters()]
    return {
        **record.determining(args, 'train.py'),
        'the examples or their encoding': array_hash(arrays),
        'the weights at the start': array_hash(parameters),
    }


def predict_sets(inputs: Inputs, job: FineTuning) -> dict[str, Sets]:
    """Predict each split on every rank. Only the first one has the examples."""
    predicted = {}
    for split in ('valid', 'test'):
        texts = getattr(inputs.text, split) if job.ranks.first else {}
        predicted[split] = {
            name: (texts.get(name), job.predict(data).numpy())
            for name, data in getattr(inputs.encoded, split).items()
        }
    return predicted


def finish(args, inputs: Inputs, job: FineTuning, logger: ResultLogger, predicted: dict):
    """Write the submission, the predictions, the report, and the record of the whole run."""
    task, folder = inputs.task, os.path.join(args.analysis_dir, args.desc)
    finished = finished_record(inputs.encoded, job, logger, predicted)
    if args.submit:
        record.write(folder, job.record)  # before the predictions: they are this run's
        for name, (_, logits) in predicted['test'].items():
            if name in task.submission:
                # The shared folder keeps the last run's; each run also has its own.
                for place in (args.submission_dir, folder):
                    with whole_file(os.path.join(place, task.submission[name])) as f:
                        write_submission(f, task, decode(task, logits))
        save_predictions(folder, task, predicted['test'], predicted['valid'])
        record.write(folder, finished)
    record.write(job.path(''), finished)
    if args.analysis:
        log, notes = split_log(logger.lines), inputs.text.notes
        print_metrics(task, log.evaluations, predicted['test'], predicted['valid'])
        write_report(folder, log, task, predicted['test'], predicted['valid'], notes)
    print(describe_end(args), flush=True)
    print_next_step(args.sample)


def describe_end(args) -> str:
    """Return the table that is printed at the end: what was written, and how to use it."""
    if not args.submit:
        return format_table([('kept', 'no parameters: --submit keeps them')])
    save = os.path.join(args.save_dir, args.desc)
    report_path = os.path.join(args.analysis_dir, args.desc, 'report.md')
    command = f'python predict.py FILE --params {shlex.quote(save)}'
    pairs = [('report', f'{report_path}, or report.html for a browser')] if args.analysis else []
    pairs.append(('kept', os.path.join(save, 'best_params')))
    pairs.append(('to use it', f'{command}  (FILE: new examples, in the form of the data)'))
    return format_table(pairs)


def finished_record(encoded: EncodedData, job: FineTuning, logger, predicted: dict) -> dict:
    """Return the record of a run that has ended."""
    task, scores, noise, sets = job.task, [], [], {}
    for split, parts in predicted.items():
        found = results(task, decode_sets(task, parts))
        scores += [[split, r.split, r.metric, r.value] for r in found]
        noise += [[split, r.split, r.metric, *noise_of(r)] for r in found]
        for name, (examples, _) in parts.items():
            sets[f'{split} {name}'] = record.examples_hash(examples)
    test = [data for name, data in encoded.test.items() if name != 'diagnostic']
    sizes = {'training': [encoded.train], 'validation': encoded.valid.values(), 'test': test}
    return {
        **job.record,
        'finished': True,
        'scores': scores,
        'noise': noise,  # of each score: its standard error, and the score of a guess
        'best': best_evaluation(split_log(logger.lines).evaluations, task),
        'sizes': {split: sum(map(len, parts)) for split, parts in sizes.items()},
        'examples': sets,
        'device': job.ranks.describe(job.args.precision),
        'sample': job.args.sample,
    }


def main(argv=None) -> int:
    """Run the command. Returns the exit status."""
    return exit_status('train.py', run, parse_args(argv) if ARGS is None else ARGS)


if __name__ == '__main__':
    leave(main())
