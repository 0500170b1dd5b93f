"""convert.py: both libraries compute the same, and what goes there and back is unchanged."""

import csv
import glob
import json
import os
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


# Fine-tuned models


@pytest.mark.parametrize('name', SOME_TASKS)
def test_a_fine_tuned_model_there_and_back(tmp_path, name, capsys):
    """Both libraries compute the same: for a similarity, the sum of both orders.

    Settings, task and parameters come back, also if the library saved its folder again. A bias that
    was folded comes back in the weight, a regression in the units of the data.
    """
    before, hf = exported(tmp_path, name)
    printed = capsys.readouterr().out
    assert ('sum of those of its two orders' in printed) == (name in ('qqp', 'stsb'))
    assert ('mean, weighted by' in printed) == (name == 'stsb') and 'bias' not in printed
    task, wanted, rows = (
        before.task,
        our_logits(before, TEXTS[name]),
        sequences(before, TEXTS[name]),
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(hf)
    if name == 'regression':
        wanted = torch.from_numpy(decode(task, wanted[None])).float()
    if task.layout == 'choices':
        theirs = loaded(DOUBLE_HEADS, hf)
        for k, ids in enumerate(rows):
            out = theirs(ids[None, None], mc_token_ids=torch.tensor([[len(ids) - 1]]))
            close(out.mc_logits[0, 0], wanted[k])
            close(out.logits[0, 0], lm_logits(before.model, ids.tolist()))
            context, *choices = TEXTS[name]
            if name == 'rocstories':
                assert tokenizer(context, choices[k])['input_ids'] == ids.tolist()
    else:
        theirs = loaded(CLASSIFIER, hf)
        close(sum(theirs(ids[None]).logits[0] for ids in rows), wanted)
        labels = {'stsb': list('012345'), 'regression': ['custom']}.get(name, task.labels)
        assert theirs.config.id2label == dict(enumerate(labels))
        assert (theirs.config.problem_type == 'regression') == (name == 'regression')
    theirs.save_pretrained(tmp_path / 'again')
    tokenizer.save_pretrained(tmp_path / 'again')
    for folder in (hf, tmp_path / 'again', convert_to(tmp_path / 'back', hf)):
        after = open_model(str(folder))
        assert replace(after.task, mean=0.0, std=1.0) == replace(task, mean=0.0, std=1.0)
        assert {**after.settings, 'task': None} == {**before.settings, 'task': None}
        assert after.encoder.encoder == before.encoder.encoder
        for (key, p), q in zip(after.model.named_parameters(), before.model.parameters()):
            if task.layout == 'choices' or not key.startswith('task_head'):
                assert torch.equal(p, q), key
        close(our_logits(after, TEXTS[name]), wanted)


@pytest.mark.parametrize('mean, std', [(2000.0, 5.0), (0.0, 1e-3)])
def test_a_regression_of_any_unit_there_and_back(tmp_path, mean, std):
    save_finetuned(tmp_path, replace(REGRESSION, mean=mean, std=std))
    hf = convert_to(tmp_path / 'hf', tmp_path)
    back = convert_to(tmp_path / 'back', hf)
    values = [
        decode(opened.task, our_logits(opened, TEXTS['regression'])[None])[0]
        for opened in map(open_model, map(str, (tmp_path, hf, back)))
    ]
    assert values == pytest.approx([values[0]] * 3, rel=1e-5, abs=1e-4 * std)


def test_texts_of_a_batch_with_padding(tmp_path):
    """No text has its token: earlier versions of the library classify the token before it."""
    name = 'mnli'
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


# Pre-trained models


def test_a_pre_trained_model(tmp_path, monkeypatch):
    """OpenAI's files come back byte for byte, and the settings, which train.py then uses.

    A folder with a config.json is complete.
    """
    model = shutil.copytree(MODEL_DIR, tmp_path / 'model')
    settings = {'n_ctx': 64, 'embd_pdrop': 0.0, 'attn_pdrop': 0.25, 'lr': 7e-4, 'n_iter': 5}
    settings.update(n_batch=2, clf_pdrop=0.5, resid_pdrop=0.125, afn='swish', **SIZES)
    save_settings(str(model), settings, encoder())
    written, whole_file = [], export.whole_file

    def write(path, *mode):
        written.append(os.path.basename(path))
        return whole_file(path, *mode)

    monkeypatch.setattr(export, 'whole_file', write)
    hf = convert_to(tmp_path / 'hf', model)
    assert written[-1] == 'config.json' and 'model.safetensors' in written
    theirs, opened = loaded('OpenAIGPTLMHeadModel', hf), open_model(str(model))
    text = 'Ella had no tape. She went to the store at night.'
    ids = opened.encoder.encode(text)
    assert theirs.config.vocab_size == opened.encoder.n_vocab
    assert transformers.AutoTokenizer.from_pretrained(hf)(text)['input_ids'] == ids
    found = lm_logits(opened.model, ids)[:, : opened.encoder.n_vocab]
    close(found, theirs(torch.tensor([ids])).logits[0])
    back = convert_to(tmp_path / 'back', hf)
    # The golden vocab_40000.bpe has a merge whose result is not a symbol.
    for name in {*MODEL_FILES, 'settings.json'} - {'vocab_40000.bpe'}:
        ours, after = (folder / name for folder in (model, back))
        same = json.loads if name == 'settings.json' else bytes
        assert same(ours.read_bytes()) == same(after.read_bytes()), name
    for folder in (hf, back):
        args = parse_train_args(['--dataset', 'rte', '--model_dir', str(folder)])
        assert model_settings(args) == settings


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


@pytest.mark.parametrize('kind, added', [('OpenAIGPTLMHeadModel', []), (DOUBLE_HEADS, ['[PAD]'])])
@pytest.mark.parametrize('version', [4, 5])
def test_a_model_that_the_library_made(tmp_path, kind, added, version, capsys):
    """One without our settings and special tokens is a pre-trained model."""
    theirs = library_model(tmp_path / 'hf', added, version, kind)
    opened = open_model(str(convert_to(tmp_path / 'openai', tmp_path / 'hf')))
    left_out = 'its classifier is left out' in capsys.readouterr().out
    assert left_out == (kind == DOUBLE_HEADS)
    assert opened.encoder.encode('ABC c') == [8, 6] and opened.encoder.n_vocab == 9
    assert not opened.finetuned and opened.model.config.n_head == 2
    ids = [1, 4, 8, 0, 3]
    wanted = theirs(torch.tensor([ids])).logits.reshape(5, 9 + len(added))
    close(lm_logits(opened.model, ids)[:, :9], wanted[:, :9])


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


def test_an_output_matrix_of_its_own_is_refused(tmp_path):
    library_model(tmp_path / 'hf', [], 5, 'OpenAIGPTLMHeadModel', tie_word_embeddings=False)
    assert '"tie_word_embeddings" is false' in error_of(open_model, str(tmp_path / 'hf'))


# The command line


def test_nothing_is_overwritten(tmp_path, capsys):
    """And a source or a target that is none is one line."""
    model, save = shutil.copytree(MODEL_DIR, tmp_path / 'model'), tmp_path / 'save'
    (tmp_path / 'empty').mkdir()
    save.mkdir()
    save_finetuned(save, SOME_TASKS['sst2'])
    hf = convert_to(tmp_path / 'hf', MODEL_DIR, '--n_head', '4')
    before = {path: path.read_bytes() for path in tmp_path.rglob('*') if path.is_file()}
    for source, target, words in (
        *((hf, target, 'exists; give a folder without files') for target in (model, save, hf)),
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
    assert before == {path: path.read_bytes() for path in tmp_path.rglob('*') if path.is_file()}


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
    '"I can\'t," she said; "it\'s too late (isn\'t it?)..."',
    '“Smart” ‘quotes’ — and dashes… it´s fine.',
    "They're gonna cannot; I'm, you've, who'll, y'all, c'mon, o'clock, ma'am, rock 'n' roll",
    "CAN'T stop. We won't've. He'd lost $1,000!!!",
    'Mr. and Mrs. Hill met Dr. Day in the U.S. at 9 a.m. or 10p.m. in May.',
    "the dogs' tails, Tom's 'quoted' words, 'em, 'cause, '90s",
    'end.The next one,two well-known 3-4 and/or w/o: 7€, 10%, 3kg.',
    'see www.example.com, me@example.org or http://example.com/a_b.',
    '\n  tabs\tand\n\nnew  lines \r\n here\x00 \n',
    '',
    "- -- ---- // ** ))) !? ?!! __ *** [1] {2} |3| ~4 ``quoted''",
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
