"""convert.py: both libraries compute the same, and what goes there and back is unchanged."""

import itertools
import json
import os
import pathlib
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_models import MODEL_DIR, REGRESSION, SIZES, SOME_TASKS, TEXTS, encoder, save_finetuned

import convert
from gpt1.files import MODEL_FILES
from gpt1.ops.batches import collate_windows
from gpt1.parsing import parse_train_args
from gpt1.run.encoding import encode_dataset
from gpt1.run.parallel import predict
from gpt1.settings import model_settings
from gpt1.tasks.task import Example, decode
from gpt1.weights import export
from gpt1.weights.open import open_model
from gpt1.weights.pretrained import open_weights, save_pretrained_settings

transformers = pytest.importorskip('transformers')


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def lm_logits(model, ids):
    """The logits after each of the ids, over the vocabulary and the special tokens."""
    n_rows = model.config.first_position
    h, _ = model.transformer(collate_windows(np.array([ids]), n_rows))
    return h @ model.transformer.embed.weight[:n_rows].t()


def our_logits(opened, texts):
    """The logits of an example, [n]."""
    data = encode_dataset([Example('1', texts, None)], opened.encoder, opened.task, 60)
    return predict(opened.model, data)[0]


def sequences(opened, texts):
    """The sequences of an example: lists of token ids."""
    data = encode_dataset([Example('1', texts, None)], opened.encoder, opened.task, 60)
    trunk, branches = data.tree(0)
    return [torch.from_numpy(np.concatenate([trunk, branch])) for branch in branches]


def there(tmp_path, *source):
    """Convert to a Hugging Face folder."""
    assert convert.main([*map(str, source), str(tmp_path / 'hf')]) == 0
    return tmp_path / 'hf'


# The same numbers in both libraries


def test_a_pre_trained_model(tmp_path):
    hf = there(tmp_path, '--n_head', '4', MODEL_DIR)
    theirs = transformers.OpenAIGPTLMHeadModel.from_pretrained(hf).eval()
    opened = open_model(MODEL_DIR, n_head=4)
    ids = opened.encoder.encode('Ella had no tape. She went to the store at night.')
    wanted = theirs(torch.tensor([ids])).logits[0]
    assert theirs.config.vocab_size == opened.encoder.n_vocab
    tokenizer = transformers.AutoTokenizer.from_pretrained(hf)
    assert tokenizer('Ella had no tape.')['input_ids'] == opened.encoder.encode('Ella had no tape.')
    found = lm_logits(opened.model, ids)[:, : opened.encoder.n_vocab]
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize('name', ['rocstories', 'race'])
def test_multiple_choices(tmp_path, name):
    save_finetuned(tmp_path, SOME_TASKS[name])
    hf = there(tmp_path, tmp_path / 'best_params')
    theirs = transformers.OpenAIGPTDoubleHeadsModel.from_pretrained(hf).eval()
    opened = open_model(str(tmp_path))
    logits = our_logits(opened, TEXTS[name])
    for k, ids in enumerate(sequences(opened, TEXTS[name])):
        out = theirs(ids[None, None], mc_token_ids=torch.tensor([[len(ids) - 1]]))
        torch.testing.assert_close(out.mc_logits[0, 0], logits[k], atol=1e-4, rtol=0)
        wanted = lm_logits(opened.model, ids.tolist())
        torch.testing.assert_close(out.logits[0, 0], wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize('name', ['mnli', 'sst2', 'qqp', 'stsb', 'regression'])
def test_classes_and_numbers(tmp_path, name, capsys):
    """For both orders of a similarity, the logits are added. A regression gives the data's unit."""
    save_finetuned(tmp_path, SOME_TASKS[name])
    hf = there(tmp_path, tmp_path)
    printed = capsys.readouterr().out
    assert ('sum of those of its two orders' in printed) == (name in ('qqp', 'stsb'))
    assert ('mean, weighted by' in printed) == (name == 'stsb') and 'bias' not in printed
    theirs = transformers.OpenAIGPTForSequenceClassification.from_pretrained(hf).eval()
    task, config = SOME_TASKS[name], theirs.config
    labels = {'stsb': list('012345'), 'regression': ['custom']}.get(name, task.labels)
    assert config.id2label == dict(enumerate(labels)) and config.num_labels == task.n_out
    assert (config.problem_type == 'regression') == (name == 'regression')
    opened = open_model(str(tmp_path))
    parts = [theirs(ids[None]).logits[0] for ids in sequences(opened, TEXTS[name])]
    wanted = our_logits(opened, TEXTS[name])
    if name == 'regression':
        wanted = torch.from_numpy(decode(opened.task, wanted[None])).float()
    torch.testing.assert_close(sum(parts), wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize('mean, std', [(2000, 5), (0, 1e-3)])
def test_a_regression_of_any_unit(tmp_path, mean, std, capsys):
    """Also after the way back."""
    task = replace(REGRESSION, mean=float(mean), std=float(std))
    save_finetuned(tmp_path, task)
    hf = there(tmp_path, tmp_path)
    assert 'bias' not in capsys.readouterr().out
    assert convert.main([str(hf), str(tmp_path / 'back')]) == 0
    values = [
        decode(opened.task, our_logits(opened, TEXTS['regression'])[None])[0]
        for opened in map(open_model, map(str, (tmp_path, hf, tmp_path / 'back')))
    ]
    assert values == pytest.approx([values[0]] * 3, rel=1e-5, abs=1e-4 * std)


@pytest.mark.parametrize('name', ['mnli', 'sst2'])
def test_a_batch_with_padding(tmp_path, name):
    """No text has its token: earlier versions of the library classify the token before it."""
    save_finetuned(tmp_path, SOME_TASKS[name])
    hf = there(tmp_path, tmp_path)
    theirs = transformers.OpenAIGPTForSequenceClassification.from_pretrained(hf).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(hf)
    padding = theirs.config.pad_token_id
    assert tokenizer.pad_token_id == padding < open_weights(str(hf)).n_rows
    texts = [
        TEXTS[name],
        tuple(text * 3 for text in TEXTS[name]),
        ('\u2603 snow',) * len(TEXTS[name]),
    ]
    rows = [tokenizer(*pair)['input_ids'] for pair in texts]
    assert encoder().encoder['<unk>'] in rows[2] and not any(padding in row for row in rows)
    batch = tokenizer.pad({'input_ids': rows}, return_tensors='pt')
    found = theirs(**batch).logits
    opened = open_model(str(tmp_path))
    for row, example in zip(found, texts):
        torch.testing.assert_close(row, our_logits(opened, example), atol=1e-4, rtol=0)


def test_a_bias_that_does_not_fit_is_reported(tmp_path, capsys):
    """With the normalization as drawn (gain 1, bias 0) no weight can replace a bias."""
    task = SOME_TASKS['mnli']
    model = save_finetuned(tmp_path, task)
    model.transformer.h[-1].ln_2.g.fill_(1)
    model.transformer.h[-1].ln_2.b.fill_(0)
    model.task_head.linear.bias.copy_(torch.tensor([0.5, -0.25, 0.125]))
    torch.save(model.state_dict(), tmp_path / 'best_params')
    hf = there(tmp_path, tmp_path)
    assert 'add 0.5, -0.25, 0.125 to its logits' in capsys.readouterr().out
    theirs = transformers.OpenAIGPTForSequenceClassification.from_pretrained(hf).eval()
    opened = open_model(str(tmp_path))
    [ids] = sequences(opened, TEXTS['mnli'])
    found = theirs(ids[None]).logits[0] + torch.tensor([0.5, -0.25, 0.125])
    torch.testing.assert_close(found, our_logits(opened, TEXTS['mnli']), atol=1e-4, rtol=0)
    assert convert.main([str(hf), str(tmp_path / 'back')]) == 0  # it comes back with its bias
    assert_same_model(open_model(str(tmp_path / 'back')), opened, exact=True)


@pytest.mark.parametrize('name', ['sst2', 'mnli', 'rocstories'])
def test_the_tokenizer_makes_the_sequences_of_the_task(tmp_path, name):
    save_finetuned(tmp_path, SOME_TASKS[name])
    tokenizer = transformers.AutoTokenizer.from_pretrained(there(tmp_path, tmp_path))
    assert len(tokenizer) == encoder().n_vocab + (3 if name == 'rocstories' else 4)
    opened = open_model(str(tmp_path))
    wanted = [ids.tolist() for ids in sequences(opened, TEXTS[name])]
    if name == 'rocstories':
        context, *choices = TEXTS[name]
        found = [tokenizer(context, choice)['input_ids'] for choice in choices]
    else:
        found = [tokenizer(*TEXTS[name])['input_ids']]
    assert found == wanted
    assert tokenizer(TEXTS[name][0]).keys() == {'input_ids', 'attention_mask'}


def test_the_librarys_pipeline_gives_our_probabilities(tmp_path):
    """From texts, without this program."""
    save_finetuned(tmp_path, SOME_TASKS['mnli'])
    hf = str(there(tmp_path, tmp_path))
    classify = transformers.pipeline('text-classification', hf, device=-1, top_k=None)
    first, second = TEXTS['mnli']
    [found] = classify([{'text': first, 'text_pair': second}])
    shares = our_logits(open_model(str(tmp_path)), TEXTS['mnli']).softmax(0).tolist()
    wanted = dict(zip(SOME_TASKS['mnli'].labels, shares))
    assert {item['label']: item['score'] for item in found} == pytest.approx(wanted, abs=1e-4)


# There and back


def test_openai_files_come_back_byte_for_byte(tmp_path):
    hf = there(tmp_path, MODEL_DIR, '--n_head', '4')
    assert convert.main([str(hf), str(tmp_path / 'back')]) == 0
    for name in MODEL_FILES:
        if name != 'vocab_40000.bpe':  # the golden one has a merge whose result is not a symbol
            found = (tmp_path / 'back' / name).read_bytes()
            assert found == pathlib.Path(MODEL_DIR, name).read_bytes(), name
    assert open_model(str(tmp_path / 'back')).model.config.n_head == 4


def test_the_settings_of_a_pre_trained_model_come_back(tmp_path):
    """Dropout, lr, n_iter, n_batch: what train.py then uses as defaults."""
    shutil.copytree(MODEL_DIR, tmp_path / 'model')
    settings = {'n_ctx': 64, 'embd_pdrop': 0.0, 'attn_pdrop': 0.25, 'lr': 7e-4, 'n_iter': 5}
    settings.update(n_batch=2, clf_pdrop=0.5, resid_pdrop=0.125, afn='swish', **SIZES)
    save_pretrained_settings(str(tmp_path / 'model'), settings, encoder())
    hf = there(tmp_path, tmp_path / 'model')
    assert convert.main([str(hf), str(tmp_path / 'back')]) == 0
    for folder in (hf, tmp_path / 'back'):
        args = parse_train_args(['--dataset', 'rte', '--model_dir', str(folder)])
        assert model_settings(args) == settings
    before = json.loads((tmp_path / 'model' / 'settings.json').read_text())
    assert json.loads((tmp_path / 'back' / 'settings.json').read_text()) == before


def assert_same_model(a, b, exact):
    """The same settings, task and parameters. A folded bias comes back in the weight."""
    tasks = [replace(x.task, mean=0.0, std=1.0) for x in (a, b)]
    settings = [{**x.settings, 'task': None} for x in (a, b)]
    assert tasks[0] == tasks[1] and settings[0] == settings[1]
    assert a.encoder.encoder == b.encoder.encoder
    state, wanted = a.model.state_dict(), b.model.state_dict()
    for name in wanted:
        if exact or not name.startswith('task_head'):
            assert torch.equal(state[name], wanted[name]), name


@pytest.mark.parametrize('name', SOME_TASKS)
def test_a_fine_tuned_model_comes_back(tmp_path, name):
    save_finetuned(tmp_path, SOME_TASKS[name])
    hf = there(tmp_path, tmp_path)
    assert convert.main([str(hf), str(tmp_path / 'back')]) == 0
    before = open_model(str(tmp_path))
    for folder in (hf, tmp_path / 'back'):  # the folder opens directly, too
        after = open_model(str(folder))
        assert after.finetuned
        assert_same_model(after, before, exact=before.task.layout == 'choices')
        logits = [our_logits(opened, TEXTS[name]) for opened in (after, before)]
        if name == 'regression':  # its unit has changed
            logits[1] = logits[1] * before.task.std + before.task.mean
        torch.testing.assert_close(*logits, atol=1e-4, rtol=0)
    values = [
        decode(opened.task, our_logits(opened, TEXTS[name])[None]) for opened in (before, after)
    ]
    assert values[0] == pytest.approx(values[1], abs=1e-3)


@pytest.mark.parametrize(
    'name, kind',
    [
        ('rocstories', 'OpenAIGPTDoubleHeadsModel'),
        ('sst2', 'OpenAIGPTForSequenceClassification'),
    ],
)
@pytest.mark.parametrize('max_shard_size', ['1GB', '40KB'])
def test_a_fine_tuned_model_that_the_library_saved_again(tmp_path, name, kind, max_shard_size):
    """Also with its tokenizer, in several files, and with the tied matrix under one name only."""
    save_finetuned(tmp_path, SOME_TASKS[name])
    hf = there(tmp_path, tmp_path)
    again = tmp_path / 'again'
    theirs = getattr(transformers, kind).from_pretrained(hf)
    theirs.save_pretrained(again, max_shard_size=max_shard_size)
    transformers.AutoTokenizer.from_pretrained(hf).save_pretrained(again)
    assert os.path.exists(again / 'model.safetensors.index.json') == (max_shard_size == '40KB')
    assert convert.main([str(again), str(tmp_path / 'back')]) == 0
    before, after = open_model(str(tmp_path)), open_model(str(tmp_path / 'back'))
    assert after.finetuned and after.settings == before.settings
    torch.testing.assert_close(
        our_logits(after, TEXTS[name]), our_logits(before, TEXTS[name]), atol=1e-4, rtol=0
    )


def library_model(folder, added, version, kind='OpenAIGPTDoubleHeadsModel', **options):
    """A model of the library with added tokens, as a version of it writes them."""
    symbols = ['<unk>', 'a', 'b', 'c', 'a</w>', 'b</w>', 'c</w>', 'ab', 'abc</w>']
    sizes = {'n_positions': 12, 'n_embd': 8, 'n_layer': 2, 'n_head': 2, 'afn': 'gelu'}
    torch.manual_seed(0)
    config = transformers.OpenAIGPTConfig(vocab_size=9 + len(added), **sizes, **options)
    theirs = getattr(transformers, kind)(config).eval()
    theirs.save_pretrained(folder)
    vocabulary = {symbol: i for i, symbol in enumerate(symbols)}
    if version == 4:
        ids = {token: 9 + i for i, token in enumerate(added)}
        (folder / 'vocab.json').write_text(json.dumps(vocabulary))
        (folder / 'added_tokens.json').write_text(json.dumps(ids))
        (folder / 'merges.txt').write_text('#version: 0.2\na b\nab c</w>\n')
    else:
        merges = [('a', 'b'), ('ab', 'c</w>')]
        tokenizer = transformers.OpenAIGPTTokenizer(vocab=vocabulary, merges=merges)
        tokenizer.add_tokens(added)
        tokenizer.save_pretrained(folder)
    return theirs


@pytest.mark.parametrize('kind', ['OpenAIGPTLMHeadModel', 'OpenAIGPTDoubleHeadsModel'])
def test_a_model_that_the_library_made(tmp_path, kind):
    """One without our settings and special tokens is a pre-trained model."""
    theirs = library_model(tmp_path / 'hf', [], 5, kind)
    assert convert.main([str(tmp_path / 'hf'), str(tmp_path / 'openai')]) == 0
    opened = open_model(str(tmp_path / 'openai'))
    assert opened.encoder.encode('ABC c') == [8, 6]
    assert not opened.finetuned and opened.model.config.n_head == 2
    ids = [1, 4, 8, 0, 3]
    wanted = theirs(torch.tensor([ids])).logits.reshape(5, 9)
    torch.testing.assert_close(lm_logits(opened.model, ids)[:, :9], wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize('version', [4, 5])
@pytest.mark.parametrize('first', [[], ['[PAD]']])
def test_the_special_tokens_of_the_librarys_own_example(tmp_path, version, first):
    """It fine-tunes on ROCStories (`run_openai_gpt.py`). The tokens may have any order."""
    added = [*first, '_start_', '_classify_', '_delimiter_']
    theirs = library_model(tmp_path / 'hf', added, version)
    assert convert.main([str(tmp_path / 'hf'), str(tmp_path / 'back')]) == 0
    opened = open_model(str(tmp_path / 'back'))
    assert opened.task.name == 'rocstories' and opened.encoder.n_vocab == 9
    [ids] = {tuple(ids.tolist()) for ids in sequences(opened, ('ABC', 'c', 'c'))}
    assert ids == (9, 8, 10, 6, 11)
    start, classify, delimiter = range(9 + len(first), 12 + len(first))
    row = torch.tensor([[[start, 8, delimiter, 6, classify]]])
    wanted = theirs(row, mc_token_ids=torch.tensor([[4]])).mc_logits[0, 0]
    found = our_logits(opened, ('ABC', 'c', 'c'))
    torch.testing.assert_close(found, wanted.expand(2), atol=1e-4, rtol=0)


@pytest.mark.parametrize('version', [4, 5])
def test_rows_of_other_added_tokens_are_left_out(tmp_path, version, capsys):
    kind = 'OpenAIGPTForSequenceClassification'
    library_model(tmp_path / 'hf', ['[PAD]'], version, kind)
    assert convert.main([str(tmp_path / 'hf'), str(tmp_path / 'back')]) == 0
    assert 'its classifier is left out' in capsys.readouterr().out
    assert open_weights(str(tmp_path / 'back')).n_vocab == 9


def test_an_output_matrix_of_its_own_is_refused(tmp_path, capsys):
    kind = 'OpenAIGPTLMHeadModel'
    library_model(tmp_path / 'hf', [], 5, kind, tie_word_embeddings=False)
    assert convert.main([str(tmp_path / 'hf'), str(tmp_path / 'back')]) == 2
    assert '"tie_word_embeddings" is false' in capsys.readouterr().err


# The command line


def test_nothing_is_overwritten(tmp_path, capsys):
    shutil.copytree(MODEL_DIR, tmp_path / 'model')
    hf = there(tmp_path, MODEL_DIR, '--n_head', '4')
    (tmp_path / 'save').mkdir()
    save_finetuned(tmp_path / 'save', SOME_TASKS['sst2'])
    before = {path: path.read_bytes() for path in tmp_path.rglob('*') if path.is_file()}
    pairs = itertools.product([tmp_path / 'model', hf, tmp_path / 'save'], repeat=2)
    for source, target in pairs:
        capsys.readouterr()
        assert convert.main([str(source), os.path.join(target, '.'), '--n_head', '4']) == 2
        error = capsys.readouterr().err
        same = source == target
        assert ('is the folder of the source' if same else 'exists') in error
        assert error.count('\n') == 1
    assert convert.main([str(tmp_path / 'save' / 'best_params'), str(tmp_path / 'save')]) == 2
    assert 'is the folder of the source' in capsys.readouterr().err
    after = {path: path.read_bytes() for path in tmp_path.rglob('*') if path.is_file()}
    assert after == before


def test_a_source_or_a_target_that_is_none(tmp_path, capsys):
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'file').write_text('')
    for source, target in (('nothing', 'x'), ('empty', 'x'), (MODEL_DIR, 'file')):
        try:
            status = convert.main([str(tmp_path / source), str(tmp_path / target), '--n_head=4'])
        except SystemExit as stop:
            status = stop.code
        assert status == 2
        error = capsys.readouterr().err
        assert error.startswith('convert.py: error: ') and error.count('\n') == 1
        assert (source if target == 'x' else target) in error
    assert not os.path.exists(tmp_path / 'x')


def test_a_half_written_folder_has_no_config(tmp_path, monkeypatch):
    """It is written last, so that a folder with a config is complete."""
    written = []
    whole_file = export.whole_file
    monkeypatch.setattr(
        export,
        'whole_file',
        lambda path, *mode: written.append(os.path.basename(path)) or whole_file(path, *mode),
    )
    there(tmp_path, MODEL_DIR, '--n_head', '4')
    assert written[-1] == 'config.json' and 'model.safetensors' in written
