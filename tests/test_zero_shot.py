"""Zero-shot scores: against a slow computation, token by token, and through the command line."""

import io
import json
import math

import numpy as np
import pandas
import pytest
import torch
from conftest import PROCESSES, run
from small_files import error_of, put
from test_lstm import plain_states
from test_pretrain import Pretrain, text  # noqa: F401 (a fixture)
from tiny_models import MODEL_DIR, SIZES, encoder

import datasets
from datasets import find_dprd, make_samples
from gpt1.lstm import LSTMConfig
from gpt1.ops.batches import Tree, collate_windows
from gpt1.paper import prompts, published, zero_shot
from gpt1.paper.prompts import Prompt
from gpt1.paper.zero_shot import Item
from gpt1.tasks.metrics import METRICS
from gpt1.weights.open import open_model
from model_pytorch import Config, LMModel, init_weights

assert PROCESSES  # started by conftest


def make_model(kind='transformer', n_vocab=30, n_ctx=24, std=0.5):
    torch.manual_seed(0)
    if kind == 'lstm':
        config = LSTMConfig(n_vocab=n_vocab, n_embd=8, lstm_units=6)
    else:
        config = Config(n_vocab=n_vocab, n_ctx=n_ctx, **SIZES)
    model = LMModel(config)
    init_weights(model, std=std)
    return model.double().eval()


def slow_scores(model, sequence):
    """The log-probability of each token after the first, one after the other."""
    n_vocab = model.config.n_vocab
    is_lstm = isinstance(model.config, LSTMConfig)
    states = plain_states(dict(model.named_parameters()), sequence) if is_lstm else None
    scores = []
    for n in range(1, len(sequence)):
        if is_lstm:
            h = states[n - 1]
        else:
            prefix = np.array([[*sequence[:n], 0]])
            h = model.transformer(collate_windows(prefix, model.config.first_position))[0][-2]
        logits = model.transformer.embed.weight[:n_vocab] @ h
        scores.append(logits.log_softmax(0)[sequence[n]].item())
    return scores


def some_trees():
    rng = np.random.RandomState(1)

    def ids(n):
        return rng.randint(0, 30, n)

    return [
        Tree(ids(1), (ids(3),)),
        Tree(ids(6), (ids(2), ids(5))),
        Tree(ids(2), (ids(1), ids(1), ids(4), ids(2))),
        Tree(ids(4), (ids(7), ids(7))),
    ]


@pytest.mark.parametrize('kind', ['transformer', 'lstm'])
def test_scores_are_those_of_a_computation_token_by_token(kind, monkeypatch):
    """Of each token; means, sums, and the mean of the last tokens; in batches and small steps."""
    model = make_model(kind)
    trees, counted = some_trees(), (0, 2, 0, 5)
    expected = [
        [
            slow_scores(model, [*tree.trunk, *branch])[len(tree.trunk) - 1 :]
            for branch in tree.branches
        ]
        for tree in trees
    ]
    whole = zero_shot.branch_scores
    for of_tree, scores in zip(expected, whole(model, trees), strict=True):
        for of_branch, found in zip(of_tree, scores, strict=True):
            np.testing.assert_allclose(found, of_branch, rtol=1e-5)

    def with_little_memory(model, trees, precision):
        if len(trees) > 1:
            raise torch.OutOfMemoryError
        return whole(model, trees, precision)

    monkeypatch.setattr(zero_shot, 'TOKENS', 20)  # several batches
    monkeypatch.setattr(zero_shot, 'branch_scores', with_little_memory)
    items = [Item(tree, 0, n_scored) for tree, n_scored in zip(trees, counted)]
    means, sums = zero_shot.score_items(model, items), zero_shot.score_items(model, items, True)
    assert means.shape == (4, 4) and means[0, 1] == -math.inf
    for i, of_tree in enumerate(expected):
        for k, scores in enumerate(of_tree):
            scores = scores[-counted[i] :] if counted[i] else scores
            assert means[i, k] == pytest.approx(np.mean(scores), rel=1e-5)
            assert sums[i, k] == pytest.approx(np.sum(scores), rel=1e-5)


def test_long_texts_lose_their_beginning():
    items = [
        zero_shot.cut(range(10), [[1, 2], [3, 4, 5]], 0, 8),
        zero_shot.cut(range(3), [[1, 2], [3, 4, 5]], 0, 8),
        zero_shot.cut(range(3), [range(20)], 0, 8, n_scored=15),
    ]
    assert [list(item.tree.trunk) for item in items] == [[5, 6, 7, 8, 9], [0, 1, 2], [2]]
    assert list(items[2].tree.branches[0]) == list(range(7))
    assert [item.n_scored for item in items] == [0, 0, 7]
    notes = []
    asked = [Prompt('', ('tape ' * n,), ('a', 'no'), 0) for n in (2, 3, 9)]
    zero_shot.encode_prompts(asked, encoder(), 4, notes)
    assert '2 are cut to 4 tokens' in notes


def test_the_threshold_is_the_best_one():
    rng = np.random.RandomState(0)
    for n in (2, 5, 20):
        labels = rng.randint(0, 2, n)
        labels[:2] = 0, 1
        scores = np.round(rng.randn(n) + labels, 1)
        threshold = zero_shot.best_threshold(scores, labels)
        found = METRICS['matthews'](labels, (scores > threshold).astype(int))
        others = [
            METRICS['matthews'](labels, (scores > t).astype(int))
            for t in np.arange(scores.min() - 1, scores.max() + 1, 0.1)
        ]
        assert found == pytest.approx(max(others))
    assert zero_shot.best_threshold(np.array([1.0, 2.0]), np.array([1, 1])) == 0.5


def test_the_scale_of_figure_2_and_standard_errors():
    assert published.normalize('sst2', 50, False) == 0
    assert published.normalize('sst2', 93.2, False) == pytest.approx(1)
    assert published.normalize('cola', 15.4, False) == pytest.approx(0.44)
    assert published.normalize('dprd', 100, True) == 1
    labels = np.arange(400) % 2
    right = np.random.RandomState(0).rand(10_000, 400) < 0.8
    for name in ('sst2', 'cola'):  # those of many samples
        metric = METRICS[published.ZERO_SHOT[name]['metric']]
        scores = [metric(labels, np.where(r, labels, 1 - labels)) for r in right[:2000]]
        expected = published.standard_error(name, np.mean(scores), 400)
        assert np.std(scores) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize(
    'updates_per_epoch, n_epochs, expected',
    [
        (9500, 100, published.PAPER['zero_shot']['updates']),
        (1600, 3, [100, 200, 400, 800, 1600, 3200, 4800]),
        (3, 1, [1, 3]),
    ],
)
def test_when_pre_training_logs_them(updates_per_epoch, n_epochs, expected):
    assert zero_shot.due_updates(updates_per_epoch, n_epochs) == expected


# --------------------------------------------------------------------- definite pronouns

ITEM = 'The bee landed on the flower because it had pollen.\nit\nThe bee,the flower\nthe flower\n'


def test_read_pronouns(tmp_path):
    path = tmp_path / 'test.c.txt'
    path.write_text(f'{ITEM}\n{ITEM.replace("pollen", "wings")[:-11]}The bee\n\n')
    first, second = prompts.read_dprd(str(path))
    sentence = 'The bee landed on the flower because it had pollen.'
    assert first[1:] == (sentence, 'it', ('The bee', 'the flower'), 1)
    assert second.answer == 0 and second.where == f'{path}, line 6'
    assert prompts.find_pronoun(first).start() == 37
    for content, message in [
        ('', 'is empty'),
        (ITEM.replace('it\n', ''), 'line 1: an item of 3 lines'),
        (f'{ITEM}\n{ITEM}x\n', 'line 6: an item of 5 lines'),
        (ITEM.replace(',', ' '), 'expected one of two'),
        (ITEM[:-11] + 'a bee\n', "right one is 'a bee'"),
        (ITEM.replace('\nit\n', '\nthey\n'), "has no 'they'"),
    ]:
        path.write_text(content)
        error = error_of(prompts.read_dprd, str(path))
        assert message in error and str(path) in error


def test_possessives():
    for before, pronoun, rest, expected in [
        ('Ann sold', 'his', ' car.', True),
        ('Ann saw', 'her', ' car.', True),
        ('Ann saw', 'her', ' and left.', False),
        ('Ann saw', 'her', '.', False),
        ('The mermaid swam toward Sue and made', 'her', ' gasp.', False),
        ('The mermaid swam toward Sue and waved', 'her', ' tail.', True),
        ('Ann said the car was', 'his', '.', False),
        ('Ann saw', 'him', ' there.', False),
    ]:
        assert prompts.is_possessive(before, pronoun, rest) == expected


def texts_of(item):
    return [encoder().decode([*item.tree.trunk, *branch]) for branch in item.tree.branches]


def test_candidates_take_the_place_of_the_pronoun(tmp_path):
    path = tmp_path / 'test.c.txt'
    items = [
        ('Ella took it.', 'it', 'the tape,the piano', 'the tape'),
        ('It was Ella, and her tape.', 'her', 'Ella,she', 'she'),
        ('It was Ella.', 'It', 'tape,piano', 'tape'),
    ]
    path.write_text(''.join('\n'.join(item) + '\n\n' for item in items))
    [found] = zero_shot.load_sets(encoder(), 60, str(tmp_path), names=['dprd'])

    def encoded(*sentences):
        return [encoder().decode(encoder().encode(sentence)) for sentence in sentences]

    # Nothing but a full stop follows the first pronoun: the candidates are compared.
    first, second = found.items
    assert texts_of(first) == encoded('Ella took the tape', 'Ella took the piano')
    assert first.n_scored == 0
    assert texts_of(second)[1] == encoded("It was Ella, and she's tape.")[0]
    assert second.n_scored == len(encoder().encode('tape.'))
    # The vocabulary has no line break, so nothing stands before a pronoun that is the first word.
    assert [item.label for item in found.items] == [0, 1]
    assert '1 begin with the pronoun and are left out' in found.notes
    assert not found.sample


# -------------------------------------------------------------------------------- whole sets


def test_made_up_sets_where_there_are_no_others(tmp_path, monkeypatch):
    sample = tmp_path / 'sample'
    sample.mkdir()
    monkeypatch.setattr(datasets, 'SAMPLE', str(sample))
    (tmp_path / 'mine').mkdir()
    make_samples(['dprd'], str(tmp_path / 'mine'))
    path, is_sample = find_dprd(str(tmp_path / 'mine'))
    assert is_sample
    items = prompts.read_dprd(path)
    assert len(items) >= 200
    for first, second in zip(items[::2], items[1::2]):  # twins
        assert first.candidates == second.candidates and first.pronoun == second.pronoun
        assert {first.answer, second.answer} == {0, 1}


@pytest.mark.parametrize('kind', ['transformer', 'lstm'])
def test_scores_of_all_sets(kind):
    model = make_model(kind, n_vocab=encoder().n_vocab, n_ctx=200).float()
    words = ('was', 'happy', 'night')
    sets = zero_shot.load_sets(encoder(), 200, words=words, n_examples=5)
    found = zero_shot.all_scores(model, sets)
    assert list(found) == ['zs_cola', 'zs_sst2', 'zs_race', 'zs_dprd']
    assert all(part.sample and len(part.items) == 5 for part in sets)
    # SST-2, by the slow computation
    right = 0
    for tree, label, _ in sets[1].items:
        assert [encoder().decode(branch) for branch in tree.branches] == ['night', 'happy']
        sums = [
            sum(slow_scores(model, [*tree.trunk, *branch])[len(tree.trunk) - 1 :])
            for branch in tree.branches
        ]
        right += int(np.argmax(sums)) == label
    assert found['zs_sst2'] == pytest.approx(100 * right / 5)
    alike = ('was', 'a', 'a')
    error = error_of(zero_shot.load_sets, encoder(), 100, words=alike, n_examples=3, names=['sst2'])
    assert 'does not tell' in error


def write_real_data(folder):
    """A few rows of each set, in the official formats."""
    rows = [('It was tape.', 1), ('Was tape it.', 0), ('It was night.', 1), ('Night it was.', 0)]
    article = {
        'article': 'Ella had tape.',
        'questions': ['What had she?'],
        'options': [['tape', 'a piano', 'no', 'night']],
        'answers': ['A'],
    }
    sst = ''.join(f'{words} \t{label}\n' for words, label in rows)
    for split in ('train', 'dev'):
        cola = ''.join(f'a\t{label}\t\t{words}\n' for words, label in rows)
        put(folder, {f'CoLA/{split}.tsv': cola, f'SST-2/{split}.tsv': f'sentence\tlabel\n{sst}'})
        for level in ('middle', 'high'):
            put(folder, {f'RACE/{split}/{level}/1.txt': json.dumps(article)})
    put(folder, {'test.c.txt': f'{ITEM}\n{ITEM[:-11]}The bee\n'})


def test_pre_training_logs_the_scores_and_the_script_prints_the_same(tmp_path, text):  # noqa: F811
    data = tmp_path / 'data'
    write_real_data(data)
    pretrain = Pretrain(tmp_path, text)
    options = ['--zero_shot', '--zero_shot_data', data, '--n_iter', 1]
    printed = pretrain.run(*map(str, options))
    assert 'zero-shot CoLA' in printed
    lines = [json.loads(line) for line in (pretrain.out / 'log.jsonl').read_text().splitlines()]
    logged = [line for line in lines if 'zs_cola' in line]
    last = logged[-1]
    assert last['n_epochs'] == 1 and len(logged) >= 3

    out = tmp_path / 'scores.json'
    where = ['--model_dir', pretrain.out, '--data_dir', data, '--device', 'cpu', '--out', out]
    printed = run(tmp_path, 'gpt1.paper.zero_shot', *where)
    record = json.loads(out.read_text())
    assert lines[0]['zero_shot_sets']['race']['examples'] == 2
    for name in ('cola', 'sst2', 'race', 'dprd'):
        assert not record[name]['sample']
        assert record[name]['figure'] == pytest.approx(last[f'zs_{name}'])
    assert f'± {record["race"]["error"]:.2f}  accuracy, standard error' in printed
    assert 'made up' not in printed and 'the threshold is' in printed


# ------------------------------------------------------------------------------ one's own data


@pytest.fixture
def ask(tmp_path, capsys):
    """A function that asks the small model about a file, and returns what is printed."""

    def ask(content, *options, name='own.csv', status=0):
        put(tmp_path, {name: content})
        argv = [tmp_path / name, '--model_dir', MODEL_DIR, '--n_head', 4, '--device', 'cpu']
        try:
            found = zero_shot.main([*map(str, argv), *map(str, options)])
        except SystemExit as end:
            found = end.code
        assert found == status
        return ''.join(capsys.readouterr())

    return ask


def test_a_model_is_asked_about_own_data(ask, tmp_path):
    """Words after a template, with labels and without; choices; pairs; rows that are not usable."""
    model = open_model(MODEL_DIR, None, 4).model
    texts, out = ['Ella had tape.', 'It was night.', 'She was happy.'], tmp_path / 'out.csv'
    question = ('--template', 'She was {} .', '--answers', 'good=happy', 'bad=no piano')

    def log_probability(*parts):
        [first, rest] = [encoder().encode(part) for part in parts]
        return sum(slow_scores(model, [*first, *rest])[len(first) - 1 :])

    expected = [
        [log_probability(f'{before} She was', f'{answer} .') for answer in ('happy', 'no piano')]
        for before in texts
    ]
    best = [('good', 'bad')[int(np.argmax(row))] for row in expected]
    other = {'good': 'bad', 'bad': 'good'}[best[2]]
    labels = [best[0], best[1], other]
    rows = ''.join(f'{row},{label}\n' for row, label in zip(texts, labels))
    printed = ask(f'text,label\n{rows}', *question, '--out', out)
    assert 'accuracy 66.67% ± 27.22% (standard error): 2 of 3 examples' in printed
    table = pandas.read_csv(out)
    assert list(table.prediction) == best and list(table.label) == labels
    scores = table.filter(regex='^score').to_numpy()
    np.testing.assert_allclose(scores, expected, rtol=1e-4)

    printed = ask('text\n' + ''.join(f'{row}\n' for row in texts), *question)
    assert 'accuracy' not in printed
    assert list(pandas.read_csv(io.StringIO(printed)).prediction) == best
    printed = ask('text,label\nElla had tape.,good\nNo.,what\n', *question)
    assert "label is 'what'" in printed and ' of 1 example' in printed

    choices = 'context,choice1,choice2,choice3,label\n'
    printed = ask(f'{choices}Ella had,tape.,no tape.,night.,3\nShe,was.,went.,,1\n')
    assert 'of 2 examples' in printed
    pairs = json.dumps({'text1': 'Ella had tape.', 'text2': 'She was happy.', 'label': 'no'})
    template = ('--template', '{text1} {text2} ? {}', '--answers', 'yes', 'no')
    assert 'of 1 example' in ask(pairs, *template, name='own.jsonl')


@pytest.mark.parametrize(
    'content, options, message',
    [
        ('text\na\n', [], "no column 'context'"),
        ('text\na\n', ['--answers', 'tape'], 'expected two or more'),
        ('text\na\n', ['--answers', 'a', 'a'], 'expected two or more that differ'),
        ('text\na\n', ['--answers', ' ', 'a'], 'no tokens'),
        ('text\na\n', ['--answers', 'A', 'a'], 'does not tell'),
        ('text\na\n', ['--answers', 'a', 'no', '--template', 'It was'], 'expected {} once'),
        ('text\na\n', ['--answers', 'a', 'no', '--template', '{film} {}'], "'film'"),
        ('text\na\n', ['--answers', 'a', 'no', '--template', '{} is {text}'], 'stands before'),
        ('text\n', ['--answers', 'a', 'no'], 'no rows'),
    ],
)
def test_questions_that_cannot_be_asked_are_one_line(ask, content, options, message):
    printed = ask(content, *options, status=2)
    assert message in printed.splitlines()[-1] and 'Traceback' not in printed
