"""convert.py: both libraries compute the same, and what goes there and back is unchanged."""

import csv
import glob
import json
import os
import pathlib
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import ROOT
from small_files import error_of
from tiny_models import MODEL_DIR, REGRESSION, SIZES, SOME_TASKS, TEXTS, encoder, save_finetuned

import convert
from gpt1.files import MODEL_FILES, SAMPLE_MODEL
from gpt1.ops.batches import collate_windows
from gpt1.parsing import parse_train_args
from gpt1.run.encoding import encode_dataset
from gpt1.run.parallel import predict
from gpt1.settings import model_settings
from gpt1.tasks.task import Example, decode
from gpt1.weights import export
from gpt1.weights.huggingface import open_weights
from gpt1.weights.open import open_model
from gpt1.weights.parameters import save_settings
from gpt1.weights.vocabulary import open_encoder
from text_utils import english_tokenizer, split_words

transformers = pytest.importorskip('transformers')
CLASSIFIER = 'OpenAIGPTForSequenceClassification'
DOUBLE_HEADS = 'OpenAIGPTDoubleHeadsModel'


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def close(found, wanted):
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)


def lm_logits(model, ids):
    """The logits after each of the ids, over the vocabulary and the special tokens."""
    n_rows = model.config.first_position
    h, _ = model.transformer(collate_windows(np.array([ids]), n_rows))
    return h @ model.transformer.embed.weight[:n_rows].t()


def encoded(opened, texts):
    return encode_dataset([Example('1', texts, None)], opened.encoder, opened.task, 60)


def our_logits(opened, texts):
    return predict(opened.model, encoded(opened, texts))[0]


def sequences(opened, texts):
    trunk, branches = encoded(opened, texts).tree(0)
    return [torch.from_numpy(np.concatenate([trunk, branch])) for branch in branches]


def loaded(kind, folder):
    return getattr(transformers, kind).from_pretrained(folder).eval()


def convert_to(target, *source):
    assert convert.main([*map(str, source), str(target)]) == 0
    return target


def exported(tmp_path, name):
    """A fine-tuned model and its Hugging Face folder."""
    save_finetuned(tmp_path, SOME_TASKS[name])
    return open_model(str(tmp_path)), convert_to(tmp_path / 'hf', tmp_path)


# The same numbers in both libraries


@pytest.mark.parametrize('name', ['rocstories', 'race'])
def test_multiple_choices(tmp_path, name):
    opened, hf = exported(tmp_path, name)
    theirs, tokenizer = loaded(DOUBLE_HEADS, hf), transformers.AutoTokenizer.from_pretrained(hf)
    logits = our_logits(opened, TEXTS[name])
    for k, ids in enumerate(sequences(opened, TEXTS[name])):
        out = theirs(ids[None, None], mc_token_ids=torch.tensor([[len(ids) - 1]]))
        close(out.mc_logits[0, 0], logits[k])
        close(out.logits[0, 0], lm_logits(opened.model, ids.tolist()))
        if name == 'rocstories':
            context, choice = TEXTS[name][0], TEXTS[name][1 + k]
            assert tokenizer(context, choice)['input_ids'] == ids.tolist()


@pytest.mark.parametrize('name', ['mnli', 'sst2', 'qqp', 'stsb', 'regression'])
def test_classes_and_numbers(tmp_path, name, capsys):
    """For both orders of a similarity, the logits are added. A regression gives the data's unit."""
    opened, hf = exported(tmp_path, name)
    printed = capsys.readouterr().out
    assert ('sum of those of its two orders' in printed) == (name in ('qqp', 'stsb'))
    assert ('mean, weighted by' in printed) == (name == 'stsb') and 'bias' not in printed
    theirs, task = loaded(CLASSIFIER, hf), SOME_TASKS[name]
    labels = {'stsb': list('012345'), 'regression': ['custom']}.get(name, task.labels)
    assert theirs.config.id2label == dict(enumerate(labels))
    assert theirs.config.num_labels == task.n_out
    assert (theirs.config.problem_type == 'regression') == (name == 'regression')
    parts = [theirs(ids[None]).logits[0] for ids in sequences(opened, TEXTS[name])]
    wanted = our_logits(opened, TEXTS[name])
    if name == 'regression':
        wanted = torch.from_numpy(decode(opened.task, wanted[None])).float()
    close(sum(parts), wanted)


@pytest.mark.parametrize('mean, std', [(2000.0, 5.0), (0.0, 1e-3)])
def test_a_regression_of_any_unit_there_and_back(tmp_path, mean, std, capsys):
    save_finetuned(tmp_path, replace(REGRESSION, mean=mean, std=std))
    hf = convert_to(tmp_path / 'hf', tmp_path)
    back = convert_to(tmp_path / 'back', hf)
    assert 'bias' not in capsys.readouterr().out
    values = [
        decode(opened.task, our_logits(opened, TEXTS['regression'])[None])[0]
        for opened in map(open_model, map(str, (tmp_path, hf, back)))
    ]
    assert values == pytest.approx([values[0]] * 3, rel=1e-5, abs=1e-4 * std)


@pytest.mark.parametrize('name', ['mnli', 'sst2'])
def test_texts_of_a_batch_with_padding(tmp_path, name):
    """No text has its token: earlier versions of the library classify the token before it."""
    opened, hf = exported(tmp_path, name)
    theirs, tokenizer = loaded(CLASSIFIER, hf), transformers.AutoTokenizer.from_pretrained(hf)
    assert len(tokenizer) == encoder().n_vocab + 4
    padding = theirs.config.pad_token_id
    assert tokenizer.pad_token_id == padding < open_weights(str(hf)).n_rows
    snow = ('\u2603 snow',) * len(TEXTS[name])
    texts = [TEXTS[name], tuple(text * 3 for text in TEXTS[name]), snow]
    rows = [tokenizer(*pair)['input_ids'] for pair in texts]
    assert rows[0] == sequences(opened, texts[0])[0].tolist()
    assert encoder().encoder['<unk>'] in rows[2] and not any(padding in row for row in rows)
    batch = tokenizer.pad({'input_ids': rows}, return_tensors='pt')
    assert batch.keys() == {'input_ids', 'attention_mask'}
    for row, example in zip(theirs(**batch).logits, texts):
        close(row, our_logits(opened, example))


def test_a_bias_that_does_not_fit_is_refused(tmp_path, capsys):
    """With the normalization as drawn (gain 1, bias 0) no weight can replace a bias."""
    model = save_finetuned(tmp_path, SOME_TASKS['mnli'])
    model.transformer.h[-1].ln_2.b.fill_(0)
    torch.save(model.state_dict(), tmp_path / 'best_params')
    assert convert.main([str(tmp_path), str(tmp_path / 'hf')]) == 2
    assert 'cannot express that of this classifier' in capsys.readouterr().err
    assert not (tmp_path / 'hf').exists()


# There and back


def test_a_pre_trained_model(tmp_path, monkeypatch):
    """OpenAI's files come back byte for byte. A folder with a config.json is complete."""
    written, whole_file = [], export.whole_file

    def write(path, *mode):
        written.append(os.path.basename(path))
        return whole_file(path, *mode)

    monkeypatch.setattr(export, 'whole_file', write)
    hf = convert_to(tmp_path / 'hf', '--n_head', '4', MODEL_DIR)
    assert written[-1] == 'config.json' and 'model.safetensors' in written
    theirs, opened = loaded('OpenAIGPTLMHeadModel', hf), open_model(MODEL_DIR, n_head=4)
    text = 'Ella had no tape. She went to the store at night.'
    ids = opened.encoder.encode(text)
    assert theirs.config.vocab_size == opened.encoder.n_vocab
    assert transformers.AutoTokenizer.from_pretrained(hf)(text)['input_ids'] == ids
    found = lm_logits(opened.model, ids)[:, : opened.encoder.n_vocab]
    close(found, theirs(torch.tensor([ids])).logits[0])
    back = convert_to(tmp_path / 'back', hf)
    for name in MODEL_FILES:
        if name != 'vocab_40000.bpe':  # the golden one has a merge whose result is not a symbol
            assert (back / name).read_bytes() == pathlib.Path(MODEL_DIR, name).read_bytes(), name
    assert open_model(str(back)).model.config.n_head == 4


def test_the_settings_of_a_pre_trained_model_come_back(tmp_path):
    """Dropout, lr, n_iter, n_batch: what train.py then uses as defaults."""
    shutil.copytree(MODEL_DIR, tmp_path / 'model')
    settings = {'n_ctx': 64, 'embd_pdrop': 0.0, 'attn_pdrop': 0.25, 'lr': 7e-4, 'n_iter': 5}
    settings.update(n_batch=2, clf_pdrop=0.5, resid_pdrop=0.125, afn='swish', **SIZES)
    save_settings(str(tmp_path / 'model'), settings, encoder())
    hf = convert_to(tmp_path / 'hf', tmp_path / 'model')
    back = convert_to(tmp_path / 'back', hf)
    for folder in (hf, back):
        args = parse_train_args(['--dataset', 'rte', '--model_dir', str(folder)])
        assert model_settings(args) == settings
    before = json.loads((tmp_path / 'model' / 'settings.json').read_text())
    assert json.loads((back / 'settings.json').read_text()) == before


@pytest.mark.parametrize('name', SOME_TASKS)
def test_a_fine_tuned_model_comes_back(tmp_path, name):
    """With its settings, task and parameters; a bias that was folded comes back in the weight."""
    before, hf = exported(tmp_path, name)
    back = convert_to(tmp_path / 'back', hf)
    wanted = our_logits(before, TEXTS[name])
    if name == 'regression':  # its unit has changed
        wanted = wanted * before.task.std + before.task.mean
    expected = before.model.state_dict()
    for folder in (hf, back):  # the folder opens directly, too
        after = open_model(str(folder))
        assert replace(after.task, mean=0.0, std=1.0) == replace(before.task, mean=0.0, std=1.0)
        assert {**after.settings, 'task': None} == {**before.settings, 'task': None}
        assert after.encoder.encoder == before.encoder.encoder
        for key, p in after.model.state_dict().items():
            if before.task.layout == 'choices' or not key.startswith('task_head'):
                assert torch.equal(p, expected[key]), key
        close(our_logits(after, TEXTS[name]), wanted)


@pytest.mark.parametrize('name, kind', [('rocstories', DOUBLE_HEADS), ('sst2', CLASSIFIER)])
def test_a_fine_tuned_model_that_the_library_saved_again(tmp_path, name, kind):
    """Also with its tokenizer, and with the tied matrix under one name only."""
    before, hf = exported(tmp_path, name)
    again = tmp_path / 'again'
    loaded(kind, hf).save_pretrained(again)
    transformers.AutoTokenizer.from_pretrained(hf).save_pretrained(again)
    after = open_model(str(convert_to(tmp_path / 'back', again)))
    assert after.finetuned and after.settings == before.settings
    close(our_logits(after, TEXTS[name]), our_logits(before, TEXTS[name]))


def library_model(folder, added, version, kind=DOUBLE_HEADS, **options):
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


@pytest.mark.parametrize('kind', ['OpenAIGPTLMHeadModel', DOUBLE_HEADS])
def test_a_model_that_the_library_made(tmp_path, kind):
    """One without our settings and special tokens is a pre-trained model."""
    theirs = library_model(tmp_path / 'hf', [], 5, kind)
    opened = open_model(str(convert_to(tmp_path / 'openai', tmp_path / 'hf')))
    assert opened.encoder.encode('ABC c') == [8, 6]
    assert not opened.finetuned and opened.model.config.n_head == 2
    ids = [1, 4, 8, 0, 3]
    wanted = theirs(torch.tensor([ids])).logits.reshape(5, 9)
    close(lm_logits(opened.model, ids)[:, :9], wanted)


@pytest.mark.parametrize('version, first', [(4, []), (5, ['[PAD]'])])
def test_the_special_tokens_of_the_librarys_own_example(tmp_path, version, first):
    """It fine-tunes on ROCStories (`run_openai_gpt.py`). The tokens may have any order."""
    added = [*first, '_start_', '_classify_', '_delimiter_']
    theirs = library_model(tmp_path / 'hf', added, version)
    opened = open_model(str(convert_to(tmp_path / 'back', tmp_path / 'hf')))
    assert opened.task.name == 'rocstories' and opened.encoder.n_vocab == 9
    [ids] = {tuple(ids.tolist()) for ids in sequences(opened, ('ABC', 'c', 'c'))}
    assert ids == (9, 8, 10, 6, 11)
    start, classify, delimiter = range(9 + len(first), 12 + len(first))
    row = torch.tensor([[[start, 8, delimiter, 6, classify]]])
    wanted = theirs(row, mc_token_ids=torch.tensor([[4]])).mc_logits[0, 0]
    close(our_logits(opened, ('ABC', 'c', 'c')), wanted.expand(2))


@pytest.mark.parametrize('version', [4, 5])
def test_rows_of_other_added_tokens_are_left_out(tmp_path, version, capsys):
    library_model(tmp_path / 'hf', ['[PAD]'], version, CLASSIFIER)
    back = convert_to(tmp_path / 'back', tmp_path / 'hf')
    assert 'its classifier is left out' in capsys.readouterr().out
    assert open_weights(str(back)).n_vocab == 9


def test_an_output_matrix_of_its_own_is_refused(tmp_path):
    library_model(tmp_path / 'hf', [], 5, 'OpenAIGPTLMHeadModel', tie_word_embeddings=False)
    assert '"tie_word_embeddings" is false' in error_of(open_model, str(tmp_path / 'hf'))


# The command line


def test_nothing_is_overwritten(tmp_path, capsys):
    """And a source or a target that is none is one line."""
    shutil.copytree(MODEL_DIR, tmp_path / 'model')
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'save').mkdir()
    save_finetuned(tmp_path / 'save', SOME_TASKS['sst2'])
    hf = convert_to(tmp_path / 'hf', MODEL_DIR, '--n_head', '4')
    before = {path: path.read_bytes() for path in tmp_path.rglob('*') if path.is_file()}
    model, save = tmp_path / 'model', tmp_path / 'save'
    for source, target, words in (
        *((hf, target, 'exists; give a folder without files') for target in (model, save, hf)),
        *((model, target, 'exists; give a folder without files') for target in (model, save, hf)),
        (save / 'best_params', os.path.join(save, '.'), 'exists; give a folder without files'),
        (model, save / 'best_params', 'is not a folder that you may write to'),
        (tmp_path / 'nothing', tmp_path / 'x', f'no such file or folder: {tmp_path / "nothing"}'),
        (tmp_path / 'empty', tmp_path / 'x', f'cannot read {tmp_path / "empty"}'),
    ):
        capsys.readouterr()
        try:
            status = convert.main([str(source), str(target), '--n_head', '4'])
        except SystemExit as stop:
            status = stop.code
        error = capsys.readouterr().err
        assert status == 2 and words in error
        assert error.startswith('convert.py: error: ') and error.count('\n') == 1
    after = {path: path.read_bytes() for path in tmp_path.rglob('*') if path.is_file()}
    assert after == before and not os.path.exists(tmp_path / 'x')


def test_the_model_folder_of_a_fresh_clone(tmp_path, capsys, monkeypatch):
    """It has no weights: the sample is converted. Then weights can be put beside its README."""
    monkeypatch.setattr(convert, 'find_model_dir', lambda: SAMPLE_MODEL)
    hf = convert_to(tmp_path / 'hf', os.path.dirname(SAMPLE_MODEL))
    assert 'python download.py fetches them): this is the sample' in capsys.readouterr().err
    (tmp_path / 'model' / 'sample').mkdir(parents=True)
    for name in ('README.md', '.weights.lock'):
        (tmp_path / 'model' / name).write_text('')
    back = convert_to(tmp_path / 'model', hf)
    assert open_model(str(back)).model.config.n_layer == 4


# The tokenizer gives the ids of TextEncoder for ordinary English

ENGLISH = [
    "Tom couldn't go. He'd lost $1,000!!!",
    '"I can\'t," she said; "it\'s too late (isn\'t it?)..."',
    '“Smart” ‘quotes’ — and dashes… it´s fine.',
    "They're gonna cannot; I'm, you've, who'll, y'all, o'clock, ma'am, rock 'n' roll",
    "CAN'T stop. We won't've. It's ok; its end.",
    'Mr. and Mrs. Hill met Dr. Day in the U.S. at 9 a.m. or 10p.m. in May.',
    "the dogs' tails, Tom's 'quoted' words, 'em, 'cause, '90s",
    'end.The next one,two well-known 3-4 and/or w/o: 7€, 10%, 3kg.',
    'see www.example.com, me@example.org or http://example.com/a_b.',
    'tabs\tand\n\nnew  lines \r\n here\x00',
    '\n  spaces at both ends \n',
    '',
    "- -- ---- // ** ))) !? ?!! __ *** [1] {2} |3| ~4 ``quoted''",
    "c'mon, this'll do, that've",
]
WORDS = "dog Tom's can't I'm Mr. U.S. e.g. 10 3.5 9am USA o'clock :) 5km".split()
OPENING = ('', "'", '"', '(', '$', '...', '#')
CLOSING = ('', "'", '"', ',', '!', '?', ':', ';', '...', ')', "'s", '%')


def test_the_exported_tokenizer_gives_our_ids(tmp_path):
    ours = open_encoder(SAMPLE_MODEL)
    hf = convert_to(tmp_path / 'hf', SAMPLE_MODEL)
    theirs = transformers.AutoTokenizer.from_pretrained(hf)
    normalizer = theirs.backend_tokenizer.normalizer
    for text in ENGLISH + [
        f'Oh {a}{word}{b} no' for word in WORDS for a in OPENING for b in CLOSING
    ]:
        words = [token.lower() for word in split_words(text) for token in english_tokenizer()(word)]
        assert [word for word in normalizer.normalize_str(text).split(' ') if word] == words, text
    texts = list(ENGLISH)
    for path in glob.glob(os.path.join(ROOT, 'data', 'sample', '*.csv')):
        with open(path, encoding='utf-8', newline='') as f:
            for row in list(csv.DictReader(f))[:100]:
                texts.append(' '.join(row[f'InputSentence{i}'] for i in range(1, 5)))
    assert theirs(texts)['input_ids'] == ours.encode_all(texts)
    assert theirs.decode(ours.encode("He's sad.")) == "he 's sad ."
