"""A recorded run of OpenAI's own program, against ours: update by update, from text to predictions.

GOLDEN_DIR names the recording: `data/`, `model/`, `expected.json`, `expected.npz`.
"""

import json
import os

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from datasets import rocstories
from model_pytorch import Config, DoubleHeadModel, special_rows
from parallel import Ranks
from text_utils import TextEncoder
from train import FineTuning, encode_stories, fill_model, parse_args, run
from utils import collate, iter_data, longest_sequence

GOLDEN_DIR = os.environ.get('GOLDEN_DIR') or os.path.join(
    os.path.dirname(os.path.abspath(__file__)), 'golden', 'rocstories-tiny'
)
SPLITS = ('tr', 'va', 'te')
CPU = [torch.device('cpu')]


@pytest.fixture(scope='module')
def expected():
    with open(os.path.join(GOLDEN_DIR, 'expected.json')) as f:
        values = json.load(f)
    with np.load(os.path.join(GOLDEN_DIR, 'expected.npz')) as arrays:
        return {**values, **arrays}


@pytest.fixture(scope='module')
def args(expected, tmp_path_factory):
    """The command line of the recorded run, from its hyperparameters."""
    out = tmp_path_factory.mktemp('golden')
    argv = [
        '--dataset',
        'rocstories',
        '--submit',
        '--n_gpu',
        '1',
        '--device',
        'cpu',
        '--data_dir',
        os.path.join(GOLDEN_DIR, 'data'),
        '--model_dir',
        os.path.join(GOLDEN_DIR, 'model'),
        *(f'--{name}_dir={out / name}' for name in ('log', 'save', 'submission', 'analysis')),
    ]
    options = vars(parse_args(argv))
    for name, value in expected['hyperparameters'].items():
        # The others are results, checked below, or tell where and how the recording was made.
        if (
            name in options
            and not name.endswith(('_dir', '_path'))
            and name not in ('desc', 'submit', 'analysis')
        ):
            argv += [f'--{name}'] * value if isinstance(value, bool) else [f'--{name}={value}']
    return parse_args(argv)


@pytest.fixture(scope='module')
def encoder(args):
    return TextEncoder(args.encoder_path, args.bpe_path)


@pytest.fixture(scope='module')
def splits(args):
    return rocstories(args.data_dir, args.n_valid)


@pytest.fixture(scope='module')
def stories(args, splits, encoder):
    return encode_stories(splits, encoder, args.n_ctx)


@pytest.fixture(scope='module')
def config(args, stories, encoder):
    n_ctx = min(longest_sequence([story for split in stories for story in split]), args.n_ctx)
    return Config(
        encoder.n_vocab,
        n_ctx,
        args.n_embd,
        args.n_head,
        args.n_layer,
        args.afn,
        args.embd_pdrop,
        args.attn_pdrop,
        args.resid_pdrop,
        args.clf_pdrop,
    )


def to_openai_arrays(stories, config):
    """The original's padded arrays X [stories, 2, n_ctx, 2] and M [stories, 2, n_ctx], from our *separate* batch."""
    batch = collate(stories, config.first_position, share_context=False)
    n = sum(
        2 * len(story.trunk) + sum(map(len, story.branches)) for story in stories
    )  # what comes after is padding
    slots = batch.slots[:n]
    place = (
        torch.div(slots, batch.length, rounding_mode='floor') * config.n_ctx + slots % batch.length
    )
    x = np.zeros((batch.rows * config.n_ctx, 2), dtype=np.int32)
    m = np.zeros(batch.rows * config.n_ctx, dtype=np.float32)
    x[:, 1] = np.tile(
        config.first_position + np.arange(config.n_ctx), batch.rows
    )  # the original numbers the padding too
    x[place, 0], m[place] = batch.ids[:n], 1
    assert (x[place, 1] == batch.positions[:n].numpy()).all()
    return x.reshape(len(stories), 2, config.n_ctx, 2), m.reshape(len(stories), 2, config.n_ctx)


def openai_name(name):
    """transformer.h.0.attn.c_attn.w -> h0.attn.c_attn.w, and so on."""
    name = name.removeprefix('transformer.').replace('embed.weight', 'we')
    name = name.replace('task_head.linear.weight', 'clf.w').replace(
        'task_head.linear.bias', 'clf.b'
    )
    return 'h' + name[2:] if name.startswith('h.') else name


def openai_value(name, tensor):
    """In the original's shape: matrices of a layer have a leading 1, the classifier's is transposed."""
    value = tensor.detach().numpy()
    if name == 'clf.w':
        return value.T
    return value[None] if value.ndim == 2 and name != 'we' else value


@pytest.fixture
def tuning(args, config, stories, expected):
    """A run about to begin, with the recorded initial parameters."""
    random_state = np.random.RandomState(args.seed)
    model = DoubleHeadModel(config)
    fill_model(model, args, special_rows(args.n_embd, random_state))
    with torch.no_grad():
        for name, p in model.named_parameters():
            initial = expected[f'initial/{openai_name(name)}']
            p.copy_(
                torch.from_numpy(initial.T if openai_name(name) == 'clf.w' else initial).view_as(p)
            )
    return FineTuning(args, model, stories[0], stories[1], CPU, Ranks(CPU), random_state)


def assert_parameters(model, expected, when, lm_coef):
    for name, p in model.named_parameters():
        name = openai_name(name)
        if name == 'clf.b':  # its gradient is zero: the same for both endings
            continue
        if (
            name == f'h{len(model.transformer.h) - 1}.ln_2.b' and not lm_coef
        ):  # alone with the classifier it, too, moves both endings' scores alike
            continue
        value, wanted = openai_value(name, p), expected[f'{when}/{name}']
        assert value.shape == wanted.shape
        if name.endswith(
            'attn.c_attn.b'
        ):  # so is that of the keys' bias: it moves all scores of a query alike
            n = len(value) // 3
            value, wanted = np.delete(value, slice(n, 2 * n)), np.delete(wanted, slice(n, 2 * n))
        np.testing.assert_allclose(value, wanted, rtol=0, atol=2e-5, err_msg=f'{name} {when}')


def test_token_ids_and_split(expected, splits, encoder):
    for split, name in zip(splits, SPLITS):
        recorded = expected['token_ids'][name]
        for text, key in (('story', 'story'), ('ending1', 'ending1'), ('ending2', 'ending2')):
            assert [encoder.encode(t) for t in getattr(split, text)] == recorded[key]
        if 'label' in recorded:
            assert split.label == recorded['label']


def test_context_length_and_encoded_arrays(expected, args, config, stories):
    assert args.n_ctx // 2 - 2 == expected['hyperparameters']['max_len']
    assert config.n_ctx == expected['hyperparameters']['n_ctx_used']
    for split, name in zip(stories[1:], ('valid', 'test')):
        x, m = to_openai_arrays(split, config)
        np.testing.assert_array_equal(x, expected[f'{name}_x'])
        np.testing.assert_array_equal(m, expected[f'{name}_m'])


def test_special_rows_and_order_of_batches(expected, args, config, stories):
    random_state = np.random.RandomState(args.seed)
    n_vocab, first_position = config.n_vocab, config.first_position
    special = special_rows(args.n_embd, random_state)
    if args.n_transfer >= 0:
        np.testing.assert_array_equal(special, expected['initial/we'][n_vocab:first_position])
    batches = [
        indices
        for _ in range(args.n_iter)
        for indices in iter_data(len(stories[0]), args.n_batch * args.n_gpu, random_state)
    ]
    assert (
        len(batches) == expected['hyperparameters']['n_updates_total'] == len(expected['train_x'])
    )
    for n, indices in enumerate(batches):
        batch = [stories[0][i] for i in indices]
        x, m = to_openai_arrays(batch, config)
        np.testing.assert_array_equal(x, expected['train_x'][n])
        np.testing.assert_array_equal(m, expected['train_m'][n])
        assert [story.label for story in batch] == expected['train_y'][n].tolist()


def test_loaded_parameters(expected, args, config):
    """What comes from the shards is what the original had; what does not is drawn by another generator."""
    if args.n_transfer < 0:
        pytest.skip('this recording loads nothing')
    model = DoubleHeadModel(config)
    fill_model(model, args, special_rows(args.n_embd, np.random.RandomState(args.seed)))
    for name, p in model.named_parameters():
        layer = (
            int(name.split('.')[2]) if name.startswith('transformer.h.') else -1
        )  # the embedding is always loaded
        if name.startswith('transformer.') and layer < args.n_transfer:
            name = openai_name(name)
            np.testing.assert_array_equal(openai_value(name, p), expected[f'initial/{name}'])


def test_losses_of_the_validation_set_at_the_start(expected, tuning, config):
    tuning.model.eval()
    with torch.no_grad():
        logits, lm_losses = tuning.model(
            collate(tuning.valid, config.first_position, share_context=False)
        )
        label = torch.tensor([story.label for story in tuning.valid])
        clf_losses = F.cross_entropy(logits, label, reduction='none')
    np.testing.assert_allclose(logits, expected['valid_logits_initial'], rtol=0, atol=1e-5)
    np.testing.assert_allclose(clf_losses, expected['valid_clf_losses_initial'], rtol=0, atol=1e-5)
    np.testing.assert_allclose(lm_losses, expected['valid_lm_losses_initial'], rtol=0, atol=1e-5)


def test_every_update(expected, args, config, tuning):
    """Losses of every update, and the parameters after 1, 10 and all of them."""
    total = expected['hyperparameters']['n_updates_total']
    for _ in range(args.n_iter):
        for indices in iter_data(len(tuning.train), tuning.batch_size, tuning.random_state):
            batch = [tuning.train[i] for i in indices]
            n = tuning.n_updates
            with torch.no_grad():  # dropout is 0: these are the losses that the update sees
                logits, lm_losses = tuning.model(
                    collate(batch, config.first_position, share_context=False)
                )
            clf_losses = F.cross_entropy(
                logits, torch.tensor([story.label for story in batch]), reduction='none'
            )
            np.testing.assert_allclose(
                clf_losses,
                expected['train_clf_losses'][n],
                rtol=0,
                atol=1e-5,
                err_msg=f'update {n + 1}',
            )
            np.testing.assert_allclose(
                lm_losses,
                expected['train_lm_losses'][n],
                rtol=0,
                atol=1e-5,
                err_msg=f'update {n + 1}',
            )
            loss = tuning.update(batch)[:-1].mean().item()
            assert loss == pytest.approx(
                clf_losses.mean().item() + args.lm_coef * lm_losses.mean().item(), abs=1e-5
            )
            if tuning.n_updates in (1, 10):
                assert_parameters(
                    tuning.model,
                    expected,
                    f'after_{tuning.n_updates}_update' + 's' * (tuning.n_updates > 1),
                    args.lm_coef,
                )
    assert tuning.n_updates == total
    assert_parameters(tuning.model, expected, 'after_last_update', args.lm_coef)


def test_whole_run(expected, args, stories, tuning, monkeypatch, capsys):
    """The run of the command line, with only the initial parameters put in: its log, the epoch it keeps, its predictions."""
    initial = tuning.model
    monkeypatch.setattr('train.DoubleHeadModel', lambda config: initial)
    monkeypatch.setattr('train.fill_model', lambda *_: None)
    run(args)
    with open(os.path.join(args.log_dir, f'{args.desc}.jsonl')) as f:
        log = [json.loads(line) for line in f][1:]
    assert len(log) == len(expected['log'])
    for line, wanted in zip(log, expected['log']):
        for name, value in wanted.items():
            assert line[name] == pytest.approx(value, abs=1e-5 if 'cost' in name else 1e-9), (
                name,
                line,
            )
    printed = [line for line in capsys.readouterr().out.splitlines() if line[:1].isdigit()]
    assert printed == [
        '{n_epochs} {n_updates} {tr_cost:.3f} {va_cost:.3f} {tr_acc:.2f} {va_acc:.2f}'.format(
            **line
        )
        for line in log
    ]

    kept = torch.load(os.path.join(args.save_dir, args.desc, 'best_params'), weights_only=True)
    initial.load_state_dict(kept)
    best = FineTuning(args, initial, stories[0], stories[1], CPU, Ranks(CPU), None)
    for split, name in zip(stories[1:], ('valid', 'test')):
        # Rounding noise alone moves the classifier's bias, in the recording too (its gradient is zero): it shifts both scores of a story alike.
        difference = best.predict(split).numpy() - expected[f'{name}_logits_best']
        np.testing.assert_allclose(difference - difference.mean(), 0, rtol=0, atol=1e-4)
    with open(os.path.join(args.submission_dir, 'ROCStories.tsv')) as f:
        predictions = [int(line.split('\t')[1]) for line in f.read().splitlines()[1:]]
    assert predictions == expected['predictions']
