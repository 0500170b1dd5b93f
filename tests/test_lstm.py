"""The LSTM: loss and gradients against a plain version, its files, whole runs."""

import json
import os
import shutil
from argparse import Namespace

import numpy as np
import pytest
import torch
from conftest import GOLDEN, run
from plain_model import joint_losses, padded_sequences, task_head
from test_cuda_path import OnGPU
from test_pretrain import text  # noqa: F401 (a fixture)
from tiny_models import MODEL_DIR, NO_DROPOUT, encoder

import convert
import generate
import train
from gpt1.lstm import LSTMConfig, make_config
from gpt1.ops.batches import Tree, collate, collate_windows
from gpt1.parsing import parse_train_args
from gpt1.weights.huggingface import open_weights
from gpt1.weights.open import open_model
from gpt1.weights.openai import load_openai_pretrained_model
from gpt1.weights.shards import save_openai_shards
from loss import JointLoss
from model_pytorch import Config, DoubleHeadModel, LMModel, init_weights, special_rows
from utils import InputError

CONFIG = LSTMConfig(n_vocab=20, n_embd=6, lstm_units=5, **NO_DROPOUT)


def make_model(kind=DoubleHeadModel, config=CONFIG, **more):
    """A model in float64 in which every bias matters."""
    torch.manual_seed(1)
    model = kind(config, **more)
    init_weights(model)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.3)
    return model.double()


def plain_states(parameters, ids):
    """The states of one sequence, token by token, from the equations of an LSTM."""
    w = {name.removeprefix('transformer.'): p for name, p in parameters.items()}
    hidden = cell = w['lstm.weight_hh_l0'].new_zeros(w['lstm.weight_hh_l0'].shape[1])
    states = []
    for token in ids:
        gates = w['lstm.weight_ih_l0'] @ w['embed.weight'][token] + w['lstm.bias_ih_l0']
        gates = gates + w['lstm.weight_hh_l0'] @ hidden + w['lstm.bias_hh_l0']
        i, f, g, o = gates.chunk(4)
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        hidden = o.sigmoid() * cell.tanh()
        states.append(w['proj.weight'] @ hidden + w['proj.bias'])
    return torch.stack(states)


def plain_lm_loss(parameters, states, ids):
    log_p = (states @ parameters['transformer.embed.weight'].t()).log_softmax(1)
    losses = [-log_p[t - 1, ids[t]] for t in range(1, len(states))]
    return sum(losses) / len(losses)


def plain_losses(parameters, layout, trees, targets):
    ids, lengths = padded_sequences(trees, 40)
    states = [plain_states(parameters, row[:n]) for row, n in zip(ids, lengths)]
    lm = torch.stack([plain_lm_loss(parameters, s, row) for s, row in zip(states, ids)])
    n_sequences = [len(tree.branches) for tree in trees]
    last = torch.stack([s[-1] for s in states]).split(n_sequences)
    logits = [task_head(s, parameters, layout) for s in last]
    return joint_losses(logits, lm.split(n_sequences), targets, 0.5)


def make_trees(layout):
    """Examples whose sequences differ much in length."""
    rng = np.random.RandomState(0)
    n_branches = {'text': 1, 'similarity': 2, 'choices': 3}[layout]
    return [
        Tree(
            np.append(20, rng.randint(0, 20, n)),
            tuple(np.append(rng.randint(0, 20, m), 22) for m in range(1, n_branches + 1)),
        )
        for n in (1, 13, 4)
    ]


@pytest.mark.parametrize('layout, n_out', [('text', 2), ('similarity', 2), ('choices', 1)])
def test_losses_and_gradients_are_those_of_the_plain_version(layout, n_out):
    model = make_model(layout=layout, n_out=n_out)
    trees = make_trees(layout)
    target = np.array([0, 1, 1])
    losses = JointLoss(model, 0.5)(collate(trees, CONFIG.first_position, False, target))
    losses.sum().backward()
    parameters = {name: p.detach().requires_grad_() for name, p in model.named_parameters()}
    expected = plain_losses(parameters, layout, trees, torch.from_numpy(target))
    expected.sum().backward()
    torch.testing.assert_close(losses, expected)
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.grad, parameters[name].grad, msg=name)


def test_dropout_acts_on_the_embedding_and_on_the_output_only():
    for name, same in (('embd_pdrop', False), ('resid_pdrop', False), ('attn_pdrop', True)):
        values = {**vars(CONFIG), name: 0.5}
        model = make_model(config=LSTMConfig(**values), layout='text', n_out=2)
        batch = collate(make_trees('text'), CONFIG.first_position, False)
        dropped = model.train()(batch)[0]
        assert torch.equal(dropped, model.eval()(batch)[0]) == same, name
    assert not train.has_dropout(Namespace(**{**vars(CONFIG), 'attn_pdrop': 0.1}, model='lstm'))


def test_shared_rows_are_refused():
    model = make_model(layout='choices')
    with pytest.raises(ValueError, match='separate rows'):
        model(collate(make_trees('choices'), CONFIG.first_position, True))


def write_weights(folder, **more):
    """The files of a small pre-trained LSTM with the vocabulary of the golden recording."""
    config = LSTMConfig(n_vocab=encoder().n_vocab, n_embd=8, lstm_units=7)
    model = LMModel(config)
    init_weights(model)
    for name in ('encoder_bpe_40000.json', 'vocab_40000.bpe'):
        shutil.copy(os.path.join(MODEL_DIR, name), folder)
    save_openai_shards(model, str(folder))
    settings = {'model': 'lstm', 'n_embd': 8, 'lstm_units': 7, **more}
    (folder / 'settings.json').write_text(json.dumps(settings))
    return model


def test_files_give_the_same_weights_back(tmp_path):
    model = write_weights(tmp_path)
    weights = open_weights(str(tmp_path))
    assert weights.shapes[0] == [encoder().n_vocab, 8] and weights.shapes[2] == [28, 7]
    other = LMModel(model.config)
    special = special_rows(8, np.random.RandomState(0))
    loaded = load_openai_pretrained_model(other, weights, special, 0)
    assert {id(p) for p in loaded} == {id(p) for p in other.parameters()}
    for (name, p), q in zip(model.named_parameters(), other.parameters()):
        n = encoder().n_vocab if 'embed' in name else len(p)
        assert torch.equal(p[:n], q[:n]), name
    opened = open_model(str(tmp_path))
    assert not opened.finetuned and isinstance(opened.model.config, LSTMConfig)


def test_damaged_or_other_files_are_refused(tmp_path):
    write_weights(tmp_path)
    n_vocab = encoder().n_vocab
    for config, message in (
        (Config(n_vocab=n_vocab, n_embd=8, n_head=1), 'another kind of model'),
        (LSTMConfig(n_vocab=n_vocab, n_embd=8, lstm_units=9), '--lstm_units 9'),
    ):
        with pytest.raises(InputError, match=message):
            load_openai_pretrained_model(LMModel(config), open_weights(str(tmp_path)), None, 0)
    path = tmp_path / 'params_shapes.json'
    shapes = json.loads(path.read_text())
    for wrong in (shapes[:-1], [*shapes, [1]], [[3], *shapes[1:]], [[1, 2]]):
        path.write_text(json.dumps(wrong))
        with pytest.raises(InputError, match='seven arrays|expected'):
            open_weights(str(tmp_path))


def test_pre_train_fine_tune_and_predict(tmp_path, text, capsys):  # noqa: F811
    model = tmp_path / 'model'
    sizes = ['--model', 'lstm', '--lstm_units', 12, '--n_embd', 8, '--n_ctx', 16, '--n_iter', 1]
    more = ['--n_merges', 60, '--n_windows', 20, '--warmup_updates', 3, '--device', 'cpu']
    printed = run(tmp_path, 'pretrain', '--text', text, '--out', model, *sizes, *more)
    assert 'an LSTM of 12 units, width 8' in printed
    settings = json.loads((model / 'settings.json').read_text())
    assert settings['model'] == 'lstm' and settings['lstm_units'] == 12
    assert not {'n_layer', 'n_head', 'afn', 'attn_pdrop'} & set(settings)

    data = os.path.join(GOLDEN, 'data')
    tune = ['--dataset', 'rocstories', '--submit', '--data_dir', data, '--model_dir', model]
    tune += ['--device', 'cpu', '--n_gpu', 1, '--n_valid', 32, '--n_ctx', 64, '--n_iter', 1]
    names = ('log', 'save', 'submission', 'analysis')
    printed = run(tmp_path, 'train', *tune, *(f'--{n}_dir={tmp_path / n}' for n in names))
    assert f'an LSTM of 12 units, all of it from {model}' in printed
    assert 'separate rows (an LSTM reads no others)' in printed
    best = tmp_path / 'save' / 'rocstories'
    opened = open_model(str(best))
    assert opened.finetuned and opened.model.config.lstm_units == 12
    csv = os.path.join(data, 'cloze_test_test__spring2016 - cloze_test_ALL_test.csv')
    assert len(run(tmp_path, 'predict', csv, '--params', best).splitlines()) > 10
    capsys.readouterr()
    for script, words in (
        (generate, ['Ella had', '--params', str(best)]),
        (convert, [str(best / 'best_params'), str(tmp_path / 'hf')]),
    ):
        assert script.main(words) == 2
        error = capsys.readouterr().err
        assert error.count('\n') == 1 and 'is an LSTM' in error


def test_an_lstm_s_folder_makes_train_py_use_an_lstm(tmp_path, capsys):
    write_weights(tmp_path)
    argv = ['--dataset', 'rte', '--model_dir', str(tmp_path)]
    args = parse_train_args(argv)
    assert isinstance(make_config(vars(args), n_vocab=3, n_ctx=4), LSTMConfig)
    for words, message in (
        (['--n_head=1', '--model=transformer'], 'of the kind lstm'),
        (['--n_transfer=-1', '--share_context'], 'separate rows only'),
        (['--lstm_units=0'], 'from 1'),
    ):
        with pytest.raises(SystemExit) as end:
            parse_train_args([*argv, *words])
        error = capsys.readouterr().err
        assert end.value.code == 2 and message in error and error.count('\n') == 1


def test_no_autocast_of_the_recurrence_in_bf16_on_a_gpu(monkeypatch):
    """There autocast gives an LSTM float16 whatever its type, and bf16 has no loss scale."""
    seen = []

    def recurrence(self, x):
        seen.append((x.is_cuda, torch.is_autocast_enabled('cuda')))
        return x.new_zeros(*x.shape[:2], self.hidden_size), None

    monkeypatch.setattr(torch.nn.LSTM, 'forward', recurrence)
    batch = collate_windows(np.arange(8).reshape(2, 4), 23)
    batch.ids = batch.ids.as_subclass(OnGPU)
    monkeypatch.setattr(torch, 'get_autocast_dtype', lambda device: torch.bfloat16)
    torch.set_autocast_enabled('cuda', True)
    try:
        CONFIG.trunk().eval()(batch)
    finally:
        torch.set_autocast_enabled('cuda', False)
    assert seen == [(True, False)]
