"""Recorded runs of OpenAI's own program against this one, update by update.

GOLDEN_DIR names the folder of the recordings, or the one around it. tests/golden/README.md has
their form: a whole run without dropout (`expected.json`, `expected.npz`), and any number of runs
with dropout (`dropout*.json`, `dropout*.npz`), whose masks are replayed.
"""

import glob
import json
import os

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import train
from datasets import read_data
from gpt1.ops.batches import Tree, collate
from gpt1.ops.masks import DropoutMasks
from gpt1.report.log import split_log
from gpt1.run.parallel import Ranks
from model_pytorch import special_rows

HERE = os.path.dirname(os.path.abspath(__file__))
GOLDEN_DIR = os.environ.get('GOLDEN_DIR') or os.path.join(HERE, 'golden')
INSIDE = glob.glob(os.path.join(GOLDEN_DIR, '*', 'expected.json'))
if len(INSIDE) == 1:
    GOLDEN_DIR = os.path.dirname(INSIDE[0])
for name in ('expected.json', 'expected.npz', 'data', 'model'):
    if not os.path.exists(os.path.join(GOLDEN_DIR, name)):
        pytest.fail(
            f'GOLDEN_DIR {GOLDEN_DIR} has no {name}; tests/golden/README.md lists what is needed',
            pytrace=False,
        )
RECORDINGS_WITH_DROPOUT = sorted(glob.glob(os.path.join(GOLDEN_DIR, 'dropout*.json')))
CPU = [torch.device('cpu')]
NOT_OPTIONS = ('desc', 'submit', 'analysis')  # of the recorded hyperparameters


def command_line(hyperparameters, out):
    """Return the arguments of train.py that repeat a recorded run, parsed."""
    argv = ['--dataset', 'rocstories', '--submit', '--device', 'cpu']
    argv += ['--data_dir', os.path.join(GOLDEN_DIR, 'data')]
    argv += ['--model_dir', os.path.join(GOLDEN_DIR, 'model')]
    argv += [f'--{name}_dir={out / name}' for name in ('log', 'save', 'submission', 'analysis')]
    options = vars(train.parse_args(argv))
    values = {'n_gpu': 1, 'schedule_t': 'after', **hyperparameters}
    for name, value in values.items():
        # The other values are results, or tell how the recording was made.
        if name not in options or name in NOT_OPTIONS or name.endswith(('_dir', '_path')):
            continue
        if value is True:
            argv.append(f'--{name}')
        elif value is not False:
            argv.append(f'--{name}={value}')
    return train.parse_args(argv)


@pytest.fixture(scope='module')
def expected():
    with open(os.path.join(GOLDEN_DIR, 'expected.json')) as f:
        values = json.load(f)
    with np.load(os.path.join(GOLDEN_DIR, 'expected.npz')) as arrays:
        return {**values, **arrays}


@pytest.fixture(scope='module')
def args(expected, tmp_path_factory):
    return command_line(expected['hyperparameters'], tmp_path_factory.mktemp('golden'))


@pytest.fixture(scope='module')
def inputs(args):
    return train.read_inputs(args)


@pytest.fixture
def trainer(args, inputs, expected):
    """A run at its beginning, with the recorded initial parameters."""
    with Ranks(CPU) as ranks:
        yield make_trainer(args, inputs, ranks, expected, train.FineTuning)


def make_trainer(args, inputs, ranks, recording, job_class):
    model = train.make_model(args, inputs, ranks)
    load_initial(model, recording)
    return train.make_trainer(args, job_class(args, inputs, model, ranks), inputs)


def load_initial(model, recording):
    with torch.no_grad():
        for name, p in model.named_parameters():
            name = openai_name(name)
            value = torch.from_numpy(recording[f'initial/{name}'])
            p.copy_((value.T if name == 'clf.w' else value).view_as(p))


def openai_name(name):
    """transformer.h.0.attn.c_attn.w -> h0.attn.c_attn.w, and so on."""
    name = name.removeprefix('transformer.').replace('embed.weight', 'we')
    name = name.replace('task_head.linear.weight', 'clf.w')
    name = name.replace('task_head.linear.bias', 'clf.b')
    return 'h' + name[2:] if name.startswith('h.') else name


def openai_value(name, tensor):
    """In the original, matrices of a layer have a leading 1 and the classifier's is transposed."""
    value = tensor.detach().numpy()
    if name == 'clf.w':
        return value.T
    return value[None] if value.ndim == 2 and name != 'we' else value


def openai_arrays(trees, config):
    """The original's padded arrays X [stories, 2, n_ctx, 2] and M [stories, 2, n_ctx]."""
    x = np.zeros((len(trees), 2, config.n_ctx, 2), dtype=np.int32)
    m = np.zeros((len(trees), 2, config.n_ctx), dtype=np.float32)
    x[..., 1] = config.first_position + np.arange(config.n_ctx)
    for i, tree in enumerate(trees):
        for j, branch in enumerate(tree.branches):
            sequence = np.concatenate([tree.trunk, branch])
            x[i, j, : len(sequence), 0] = sequence
            m[i, j, : len(sequence)] = 1
    return x, m


def assert_parameters(model, recording, when, lm_coef):
    last = len(model.transformer.h) - 1
    for name, p in model.named_parameters():
        name = openai_name(name)
        # Rounding alone moves parameters whose gradient is zero in exact arithmetic: the
        # classifier's bias, which adds the same to both scores of a story; without the LM loss
        # also the last bias before it; and the keys' bias, which adds the same to all scores of
        # a query.
        if name == 'clf.b' or (name == f'h{last}.ln_2.b' and not lm_coef):
            continue
        value, wanted = openai_value(name, p), recording[f'{when}/{name}']
        assert value.shape == wanted.shape
        if name.endswith('attn.c_attn.b'):
            n = len(value) // 3
            keys = slice(n, 2 * n)
            value, wanted = np.delete(value, keys), np.delete(wanted, keys)
        np.testing.assert_allclose(value, wanted, rtol=0, atol=2e-5, err_msg=f'{name} {when}')


def validation_and_test(inputs):
    return ('valid', inputs.encoded.valid['valid']), ('test', inputs.encoded.test['test'])


def assert_losses(value, wanted, update):
    np.testing.assert_allclose(value, wanted, rtol=0, atol=1e-5, err_msg=f'update {update}')


def separate_losses(model, trees, labels):
    """Classification losses [stories] and LM losses [sequences] without dropout, and logits."""
    model.eval()
    with torch.no_grad():
        batch = collate(trees, model.config.first_position, share_context=False)
        logits, lm_losses = model(batch)
        clf_losses = F.cross_entropy(logits, torch.tensor(labels), reduction='none')
    return clf_losses, lm_losses, logits


def test_token_ids_and_split(expected, args, inputs):
    _, text = read_data('rocstories', args.data_dir, n_valid=args.n_valid)
    splits = {'tr': text.train, 'va': text.valid['valid'], 'te': text.test['test']}
    for name, examples in splits.items():
        recorded = expected['token_ids'][name]
        for i, key in enumerate(('story', 'ending1', 'ending2')):
            ids = inputs.encoder.encode_all([example.texts[i] for example in examples])
            assert ids == recorded[key]
        if 'label' in recorded:
            assert [example.label for example in examples] == recorded['label']


def test_context_length_and_encoded_arrays(expected, args, inputs, trainer):
    config = trainer.job.model.config
    assert args.n_ctx // 2 - 2 == expected['hyperparameters']['max_len']
    assert config.n_ctx == expected['hyperparameters']['n_ctx_used']
    for name, data in validation_and_test(inputs):
        x, m = openai_arrays([data.tree(i) for i in range(len(data))], config)
        np.testing.assert_array_equal(x, expected[f'{name}_x'])
        np.testing.assert_array_equal(m, expected[f'{name}_m'])


def test_special_rows_and_order_of_batches(expected, args, inputs, trainer):
    config, data = trainer.job.model.config, inputs.encoded.train
    if args.n_transfer >= 0:
        special = special_rows(args.n_embd, np.random.RandomState(args.seed))
        recorded = expected['initial/we'][config.n_vocab : config.first_position]
        np.testing.assert_array_equal(special, recorded)
    batches = [items for epoch in range(args.n_iter) for items in trainer.job.batches(epoch)]
    assert len(batches) == trainer.n_updates_total == len(expected['train_x'])
    assert len(batches) == expected['hyperparameters']['n_updates_total']
    for n, items in enumerate(batches):
        x, m = openai_arrays([data.tree(i) for i in items], config)
        np.testing.assert_array_equal(x, expected['train_x'][n])
        np.testing.assert_array_equal(m, expected['train_m'][n])
        assert data.labels[items].tolist() == expected['train_y'][n].tolist()


def test_loaded_parameters(expected, args, inputs):
    """What the shards hold is equal. The original draws the rest with another generator."""
    if args.n_transfer < 0:
        pytest.skip('this recording loads nothing')
    with Ranks(CPU) as ranks:
        model = train.make_model(args, inputs, ranks)
    for name, p in model.named_parameters():
        layer = -1  # the embedding, which is always loaded
        if name.startswith('transformer.h.'):
            layer = int(name.split('.')[2])
        if name.startswith('transformer.') and layer < args.n_transfer:
            name = openai_name(name)
            np.testing.assert_array_equal(openai_value(name, p), expected[f'initial/{name}'])


def test_losses_of_the_validation_set_at_the_start(expected, inputs, trainer):
    data = inputs.encoded.valid['valid']
    trees = [data.tree(i) for i in range(len(data))]
    clf_losses, lm_losses, logits = separate_losses(trainer.job.model, trees, data.labels)
    np.testing.assert_allclose(logits, expected['valid_logits_initial'], rtol=0, atol=1e-5)
    np.testing.assert_allclose(clf_losses, expected['valid_clf_losses_initial'], rtol=0, atol=1e-5)
    np.testing.assert_allclose(lm_losses, expected['valid_lm_losses_initial'], rtol=0, atol=1e-5)


def test_every_update(expected, args, inputs, trainer):
    """The losses of every update, and the parameters after 1, 10 and all updates."""
    model, data = trainer.job.model, inputs.encoded.train
    names = {1: 'after_1_update', 10: 'after_10_updates'}
    for epoch in range(args.n_iter):
        for items in trainer.job.batches(epoch):
            n = trainer.n_updates
            trees = [data.tree(i) for i in items]
            clf_losses, lm_losses, _ = separate_losses(model, trees, data.labels[items])
            assert_losses(clf_losses, expected['train_clf_losses'][n], n + 1)
            assert_losses(lm_losses, expected['train_lm_losses'][n], n + 1)
            wanted = (clf_losses.mean() + args.lm_coef * lm_losses.mean()).item()
            assert trainer.update(items)[:-1].mean().item() == pytest.approx(wanted, abs=1e-5)
            if trainer.n_updates in names:
                assert_parameters(model, expected, names[trainer.n_updates], args.lm_coef)
    assert trainer.n_updates == expected['hyperparameters']['n_updates_total']
    assert_parameters(model, expected, 'after_last_update', args.lm_coef)


def test_whole_run(expected, args, inputs, trainer, monkeypatch, capsys):
    """The command line, with the recorded initial parameters: its log and its predictions."""
    model = trainer.job.model
    monkeypatch.setattr('train.make_model', lambda *_: model)
    train.run(args)
    with open(os.path.join(args.log_dir, f'{args.desc}.jsonl')) as f:
        log = split_log([json.loads(line) for line in f]).evaluations
    assert len(log) == len(expected['log'])
    for line, wanted in zip(log, expected['log']):
        for name, value in wanted.items():
            tolerance = 1e-5 if 'cost' in name else 1e-9
            assert line[name] == pytest.approx(value, abs=tolerance), (name, line)
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    form = '{n_epochs} {n_updates} {tr_cost:.3f} {va_cost:.3f} {tr_acc:.2f} {va_acc:.2f}'
    rows = [form.format(**line).split() for line in log]
    assert [words for words in printed if words[0].isdigit()] == rows

    kept = torch.load(os.path.join(args.save_dir, args.desc, 'best_params'), weights_only=True)
    model.load_state_dict(kept)
    for name, data in validation_and_test(inputs):
        logits = trainer.job.predict(data).numpy()
        # The classifier's bias, moved by rounding alone, shifts both scores of a story alike.
        difference = logits - expected[f'{name}_logits_best']
        np.testing.assert_allclose(difference - difference.mean(), 0, rtol=0, atol=1e-4)
    with open(os.path.join(args.submission_dir, 'ROCStories.tsv')) as f:
        predictions = [int(line.split('\t')[1]) for line in f.read().splitlines()[1:]]
    assert predictions == expected['predictions']


class ReplayedMasks(DropoutMasks):
    """The recorded dropout masks of one step ("tower"), in the order in which they were drawn."""

    def __init__(self, masks, batch):
        super().__init__(seed=0)
        self.masks = iter(masks)
        self.batch = batch

    def keep(self, kind, shape, p):
        mask = next(self.masks)
        batch = self.batch
        row, place = np.divmod(batch.slots.numpy(), batch.length)
        if kind == 'attn':  # [sequences, heads, n_ctx, n_ctx]: ours may have more padding, or less
            keep = np.ones((batch.rows, mask.shape[1], batch.length, batch.length), np.uint8)
            n = min(batch.length, mask.shape[2])
            keep[:, :, :n, :n] = mask[:, :, :n, :n]
        elif kind == 'resid':  # [sequences, n_ctx, n_embd], padded; ours is packed
            keep = np.ones((len(row), mask.shape[2]), np.uint8)
            inside = place < mask.shape[1]
            keep[inside] = mask[row[inside], place[inside]]
        else:  # the embedding [rows, n_embd], the classifier [stories, 1, n_embd]
            keep = mask
        assert keep.size == np.prod(shape)
        return torch.from_numpy(np.packbits(keep.reshape(shape), axis=-1))


class ReplayedJob(train.FineTuning):
    """Fine-tuning on the recorded batches with the recorded masks."""

    recording = None  # set by the test
    mask_shapes = ()

    def collate(self, items):
        """Here, `items` are places in the batch of the present update."""
        x, m = (self.recording[f'{name}{self.n_updates}'] for name in 'xm')
        y = self.recording[f'y{self.n_updates}'].astype(np.int64)
        config = self.model.config
        trees = [tree_of(x[i, ..., 0], m[i], config.n_vocab + 1) for i in items]
        return collate(trees, config.first_position, False, y[items])

    def masks(self, batch, seed, n_updates, place):
        tower = place // self.args.n_batch
        n = len(self.mask_shapes)
        masks = []
        for j, shape in enumerate(self.mask_shapes):
            bits = self.recording[f'mask{n_updates}/{tower * n + j}']
            masks.append(np.unpackbits(bits, count=int(np.prod(shape))).reshape(shape))
        return ReplayedMasks(masks, batch)


def tree_of(sequences, mask, delimiter):
    """The tree of a story, from its two padded sequences [2, n_ctx]."""
    first, second = (ids[: int(m.sum())] for ids, m in zip(sequences, mask))
    n = int(np.flatnonzero(first == delimiter)[0]) + 1
    return Tree(
        first[:n].astype(np.int64), (first[n:].astype(np.int64), second[n:].astype(np.int64))
    )


@torch.no_grad()
def losses_of_towers(job, n_updates):
    """Classification losses [stories] and LM losses [sequences] with the recorded masks."""
    job.model.train()
    clf_losses, lm_losses = [], []
    for place in range(0, job.batch_size, job.args.n_batch):
        batch = job.collate(np.arange(place, place + job.args.n_batch))
        batch.masks = job.masks(batch, 0, n_updates, place)
        logits, lm = job.model(batch)
        clf_losses.append(F.cross_entropy(logits, batch.target, reduction='none'))
        lm_losses.append(lm)
    return torch.cat(clf_losses).numpy(), torch.cat(lm_losses).numpy()


@pytest.mark.parametrize('path', RECORDINGS_WITH_DROPOUT, ids=os.path.basename)
def test_every_update_with_dropout(path, tmp_path, monkeypatch):
    """The losses of every update and the parameters after the last, with the recorded masks."""
    with open(path) as f:
        description = json.load(f)
    with np.load(path.removesuffix('.json') + '.npz') as arrays:
        recording = dict(arrays)
    args = command_line(description['hyperparameters'], tmp_path)
    inputs = train.read_inputs(args)
    trainer = make_trainer(args, inputs, Ranks(CPU), recording, ReplayedJob)
    job = trainer.job
    job.recording = recording
    shapes = [[n for n in shape if n] for shape in recording['mask_shapes'].tolist()]
    # The shapes may be listed for one tower or for all.
    n_drawn = sum(1 for name in recording if name.startswith('mask0/'))
    job.mask_shapes = shapes[: n_drawn // args.n_gpu]
    for n in range(description['n_updates']):
        job.n_updates = n
        clf_losses, lm_losses = losses_of_towers(job, n)
        assert_losses(clf_losses, recording[f'clf{n}'].flatten(), n + 1)
        assert_losses(lm_losses, recording[f'lm{n}'].flatten(), n + 1)
        losses = trainer.update(np.arange(args.n_batch * args.n_gpu))[:-1]
        wanted = clf_losses + args.lm_coef * lm_losses.reshape(-1, 2).mean(1)
        assert_losses(losses, wanted, n + 1)
    assert_parameters(job.model, recording, 'final', args.lm_coef)


def test_there_are_recordings_with_dropout():
    assert RECORDINGS_WITH_DROPOUT or os.environ.get('GOLDEN_DIR')
