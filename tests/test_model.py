"""The model and its loss against a slow, obvious, padded version of OpenAI's; the form of its dropout; its shards."""

import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from loss import MultipleChoiceLossCompute
from model_pytorch import (
    Config,
    DoubleHeadModel,
    OpenAIShards,
    init_weights,
    load_openai_pretrained_model,
)
from utils import InputError, Story, collate

CONFIG = Config(
    n_vocab=50,
    n_ctx=24,
    n_embd=16,
    n_head=2,
    n_layer=2,
    embd_pdrop=0,
    attn_pdrop=0,
    resid_pdrop=0,
    clf_pdrop=0,
)


def make_model(config=CONFIG, seed=0, dtype=torch.float64):
    torch.manual_seed(seed)
    model = DoubleHeadModel(config)
    init_weights(model)
    with torch.no_grad():
        for p in model.parameters():  # nothing stays at 0 or 1, where a mistake could hide
            p.add_(0.1 * torch.randn(p.shape))
    return model.to(dtype)


def make_stories(lengths, seed=0, n_vocab=CONFIG.n_vocab):
    """lengths: (story, ending 1, ending 2) in tokens, for each story."""
    random = np.random.RandomState(seed)
    return [
        Story(
            np.array([n_vocab, *random.randint(0, n_vocab, n), n_vocab + 1]),
            tuple(np.array([*random.randint(0, n_vocab, m), n_vocab + 2]) for m in endings),
            int(random.randint(2)),
            str(i),
        )
        for i, (n, *endings) in enumerate(lengths)
    ]


STORIES = make_stories([(9, 3, 5), (4, 6, 2), (12, 1, 7), (0, 0, 3)])


# ------------------------------------------------------------------------------------------------- the slow, obvious way


def slow_losses(model, stories):
    """REFERENCE: padded sequences [stories * 2, n_ctx], one attention head after another, loops. Returns logits, LM losses of each sequence."""
    p = {name: value for name, value in model.named_parameters()}
    config = model.config
    we = p['transformer.embed.weight']
    act = {
        'gelu': lambda x: (
            0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
        ),
        'relu': lambda x: x.clamp(min=0),
        'swish': lambda x: x * torch.sigmoid(x),
    }[config.afn]

    def norm(x, g, b):
        mean = x.mean(-1, keepdim=True)
        variance = ((x - mean) ** 2).mean(-1, keepdim=True)
        return (x - mean) / torch.sqrt(variance + 1e-5) * g + b

    sequences = [
        np.concatenate([story.trunk, branch]) for story in stories for branch in story.branches
    ]
    x = torch.zeros(len(sequences), config.n_ctx, dtype=torch.int64)
    m = torch.zeros(len(sequences), config.n_ctx, dtype=we.dtype)
    for i, sequence in enumerate(sequences):
        x[i, : len(sequence)] = torch.from_numpy(sequence)
        m[i, : len(sequence)] = 1
    h = we[x] + we[config.n_vocab + 3 : config.n_vocab + 3 + config.n_ctx]
    for layer in range(config.n_layer):
        q = {
            name: value
            for name, value in (
                (n.removeprefix(f'transformer.h.{layer}.'), v) for n, v in p.items()
            )
        }
        c = h @ q['attn.c_attn.w'] + q['attn.c_attn.b']
        query, key, value = c.split(config.n_embd, -1)
        size = config.n_embd // config.n_head
        heads = []
        for head in range(config.n_head):
            part = slice(head * size, (head + 1) * size)
            scores = query[..., part] @ key[..., part].transpose(1, 2) / math.sqrt(size)
            visible = torch.tril(torch.ones(config.n_ctx, config.n_ctx, dtype=we.dtype))
            heads.append(
                torch.softmax(scores * visible - 1e9 * (1 - visible), -1) @ value[..., part]
            )
        n = norm(
            h + torch.cat(heads, -1) @ q['attn.c_proj.w'] + q['attn.c_proj.b'],
            q['ln_1.g'],
            q['ln_1.b'],
        )
        mlp = act(n @ q['mlp.c_fc.w'] + q['mlp.c_fc.b']) @ q['mlp.c_proj.w'] + q['mlp.c_proj.b']
        h = norm(n + mlp, q['ln_2.g'], q['ln_2.b'])
    logits = h @ we.t()
    lm_losses = []
    for i, sequence in enumerate(sequences):
        ce = [-torch.log_softmax(logits[i, t - 1], -1)[x[i, t]] for t in range(1, config.n_ctx)]
        lm_losses.append((torch.stack(ce) * m[i, 1:]).sum() / m[i, 1:].sum())
    states = torch.stack(
        [h[i, list(sequence).index(config.n_vocab + 2)] for i, sequence in enumerate(sequences)]
    )
    clf = states @ p['task_head.linear.weight'].t() + p['task_head.linear.bias']
    return clf.view(-1, 2), torch.stack(lm_losses)


def loss_and_gradients(model, logits, lm_losses, stories, lm_coef=0.5):
    model.zero_grad()
    label = torch.tensor([story.label for story in stories])
    loss = MultipleChoiceLossCompute(lm_coef)(logits, label, lm_losses).mean()
    loss.backward()
    return loss.item(), {name: p.grad.clone() for name, p in model.named_parameters()}


def assert_same(result, expected):
    assert result[0] == pytest.approx(expected[0], abs=1e-10)
    for name, gradient in expected[1].items():
        torch.testing.assert_close(
            result[1][name], gradient, rtol=0, atol=1e-10, msg=lambda m: f'{name}: {m}'
        )


@pytest.mark.parametrize('afn', ['gelu', 'relu', 'swish'])
@pytest.mark.parametrize('share_context', [False, True])
def test_losses_and_gradients_are_those_of_the_slow_version(afn, share_context):
    model = make_model(Config(**{**CONFIG.__dict__, 'afn': afn}))
    logits, lm_losses = slow_losses(model, STORIES)
    expected = loss_and_gradients(model, logits, lm_losses, STORIES)
    fast_logits, fast_lm_losses = model(collate(STORIES, CONFIG.first_position, share_context))
    torch.testing.assert_close(fast_logits, logits, rtol=0, atol=1e-10)
    torch.testing.assert_close(
        fast_lm_losses.view(4, -1).sum(1), lm_losses.view(4, 2).sum(1), rtol=0, atol=1e-10
    )
    assert_same(loss_and_gradients(model, fast_logits, fast_lm_losses, STORIES), expected)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 14), st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=5
    ),
    st.integers(0, 100),
)
def test_shared_and_separate_rows_give_the_same(lengths, seed):
    model, stories = make_model(), make_stories(lengths, seed)
    results = [
        loss_and_gradients(
            model, *model(collate(stories, CONFIG.first_position, share_context)), stories
        )
        for share_context in (False, True)
    ]
    assert_same(results[0], results[1])


def test_parts_of_a_batch_add_up():
    model = make_model()
    whole = loss_and_gradients(
        model, *model(collate(STORIES, CONFIG.first_position, False)), STORIES
    )
    parts = [
        loss_and_gradients(model, *model(collate(part, CONFIG.first_position, False)), part)
        for part in (STORIES[:3], STORIES[3:])
    ]
    summed = {name: (3 * parts[0][1][name] + parts[1][1][name]) / 4 for name in whole[1]}
    assert_same(((3 * parts[0][0] + parts[1][0]) / 4, summed), whole)


def test_lm_coef_0_leaves_the_classifier_alone():
    model = make_model()
    logits, lm_losses = model(collate(STORIES, CONFIG.first_position, False), lm=False)
    assert lm_losses is None
    loss = MultipleChoiceLossCompute(0)(
        logits, torch.tensor([story.label for story in STORIES]), None
    ).mean()
    assert loss.item() == pytest.approx(
        F.cross_entropy(logits, torch.tensor([story.label for story in STORIES])).item(), abs=1e-12
    )


def test_padding_and_neighbours_do_not_matter():
    model = make_model().eval()
    alone = [model(collate([story], CONFIG.first_position, True))[0] for story in STORIES]
    together, _ = model(collate(STORIES, CONFIG.first_position, True))
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-12)


# --------------------------------------------------------------------------------------------------------------- dropout


def with_dropout(**rates):
    return make_model(Config(**{**CONFIG.__dict__, **rates}), dtype=torch.float32).train()


def test_embedding_dropout_is_one_mask_on_the_matrix():
    """Each entry of the matrix is kept, scaled by 1 / (1 - p), or zero, wherever it is used: look-up of tokens and positions, and LM logits."""
    model = with_dropout(embd_pdrop=0.5)
    seen = []
    model.lm_head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[1]))
    inputs = []
    model.transformer.h[0].register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    batch = collate(STORIES, CONFIG.first_position, False)
    model(batch)
    we, (dropped,) = model.transformer.embed.weight, seen
    kept = dropped != 0
    assert 0.4 < kept.float().mean() < 0.6
    torch.testing.assert_close(dropped, torch.where(kept, 2 * we, 0.0))
    torch.testing.assert_close(inputs[0], dropped[batch.ids] + dropped[batch.positions])
    model(batch)
    assert not torch.equal(seen[1] != 0, kept)  # another mask in the next batch


def test_embedding_gradient_goes_through_the_mask():
    """The gradient of a dropped entry is zero; that of a kept one is that of the dropped matrix, scaled."""
    model = with_dropout(embd_pdrop=0.5)
    seen = []
    model.lm_head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[1]))
    model(collate(STORIES, CONFIG.first_position, False))[1].sum().backward()
    gradient, kept = model.transformer.embed.weight.grad, seen[0] != 0
    assert (gradient[~kept] == 0).all()
    assert (
        gradient[: CONFIG.n_vocab][kept[: CONFIG.n_vocab]] != 0
    ).float().mean() > 0.99  # the LM logits reach every row of the vocabulary


def test_classifier_dropout_is_one_mask_for_both_endings():
    model = with_dropout(clf_pdrop=0.5)
    inputs = []
    model.task_head.linear.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    model(collate(STORIES, CONFIG.first_position, False), lm=False)
    dropped = inputs[0]  # [stories, 2, n_embd]
    assert torch.equal(dropped[:, 0] == 0, dropped[:, 1] == 0)
    assert not torch.equal(dropped[0, 0] == 0, dropped[1, 0] == 0)  # another for each story
    model.eval()
    model(collate(STORIES, CONFIG.first_position, False), lm=False)
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], 2 * inputs[1][kept])


@pytest.mark.parametrize('rate', ['embd_pdrop', 'attn_pdrop', 'resid_pdrop', 'clf_pdrop'])
def test_each_dropout_acts_in_training_only(rate):
    model = with_dropout(**{rate: 0.5})
    batch = collate(STORIES, CONFIG.first_position, False)
    assert not torch.equal(model(batch)[0], model(batch)[0])
    model.eval()
    assert torch.equal(model(batch)[0], model(batch)[0])
    torch.testing.assert_close(model(batch)[0], make_model(dtype=torch.float32).eval()(batch)[0])


@pytest.mark.parametrize('place', ['attn', 'mlp'])
def test_residual_dropout_scales_what_it_keeps(place):
    model = with_dropout(resid_pdrop=0.25)
    module = getattr(model.transformer.h[0], place)
    outputs = []
    module.register_forward_hook(lambda module, args, output: outputs.append(output))
    batch = collate(STORIES, CONFIG.first_position, False)
    model(batch, lm=False)
    model.eval()
    model(batch, lm=False)
    dropped, plain = outputs
    if (
        place == 'mlp'
    ):  # in training its input has met the attention's mask: compare where the mask can be told
        assert 0.1 < (dropped == 0).float().mean() < 0.4
        return
    kept = dropped != 0
    assert 0.6 < kept.float().mean() < 0.9
    torch.testing.assert_close(dropped[kept], plain[kept] / 0.75)


# ---------------------------------------------------------------------------------------------------------------- shards


def write_shards(folder, shapes, arrays):
    folder.mkdir(exist_ok=True)
    (folder / 'params_shapes.json').write_text(json.dumps(shapes))
    for i, piece in enumerate(
        np.array_split(np.concatenate([array.ravel() for array in arrays]), 10)
    ):
        np.save(folder / f'params_{i}.npy', piece)


@pytest.fixture
def shards(tmp_path):
    """Shards of two layers in OpenAI's layout, with every number another."""
    n = CONFIG.n_embd
    shapes = [[40, n], [CONFIG.n_vocab, n]] + [
        [1, n, 3 * n],
        [3 * n],
        [1, n, n],
        [n],
        [n],
        [n],
        [1, n, 4 * n],
        [4 * n],
        [1, 4 * n, n],
        [n],
        [n],
        [n],
    ] * 2
    random = np.random.default_rng(0)
    arrays = [random.standard_normal(shape).astype(np.float32) for shape in shapes]
    write_shards(tmp_path / 'model', shapes, arrays)
    return tmp_path / 'model', shapes, arrays


@pytest.mark.parametrize('n_transfer', [-1, 0, 1, 2])
def test_n_transfer(shards, n_transfer):
    folder, _, arrays = shards
    model = make_model(dtype=torch.float32)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    special = np.full((3, CONFIG.n_embd), 7, dtype=np.float32)
    loaded = load_openai_pretrained_model(model, OpenAIShards(folder), special, n_transfer)
    assert len(loaded) == (0 if n_transfer < 0 else 1 + 12 * n_transfer)
    if n_transfer >= 0:
        embed = model.transformer.embed.weight.detach().numpy()
        np.testing.assert_array_equal(
            embed, np.concatenate([arrays[1], special, arrays[0][: CONFIG.n_ctx]])
        )
    for layer, block in enumerate(model.transformer.h):
        for i, (name, p) in enumerate(block.named_parameters()):
            expected = (
                arrays[2 + 12 * layer + i].squeeze()
                if layer < n_transfer
                else before[f'transformer.h.{layer}.{name}'].numpy()
            )
            np.testing.assert_array_equal(p.detach().numpy(), expected)


def test_what_is_not_loaded_is_drawn():
    torch.manual_seed(0)
    model = DoubleHeadModel(CONFIG)
    init_weights(model, loaded=[model.task_head.linear.weight])
    for name, p in model.named_parameters():
        if name.endswith('.g'):
            assert (p == 1).all()
        elif p.dim() == 1:
            assert (p == 0).all()
        elif name != 'task_head.linear.weight':
            assert (
                p.std().item() == pytest.approx(0.02, rel=4 / p.numel() ** 0.5)
                and abs(p.mean().item()) < 4 * 0.02 / p.numel() ** 0.5
            )


def damage(folder, what):
    path = folder / 'params_3.npy'
    array = np.load(path)
    if what == 'missing':
        path.unlink()
    elif what == 'cut off':
        path.write_bytes(path.read_bytes()[:-100])
    elif what == 'total size':
        np.save(path, array[:-1])
    elif what == 'float64':
        np.save(path, array.astype(np.float64))
    elif what == 'NaN':
        array[5] = np.nan
        np.save(path, array)
    elif what == 'pickled':
        np.save(path, np.array([{}], dtype=object))
    elif what == 'not NumPy':
        path.write_text('<html>404</html>')
    elif what == 'shapes missing':
        (folder / 'params_shapes.json').unlink()
    elif what == 'shapes not JSON':
        (folder / 'params_shapes.json').write_text('[[1')
    elif what == 'shapes negative':
        (folder / 'params_shapes.json').write_text('[[-1, 2], [3]]')


@pytest.mark.parametrize(
    'what, message',
    [
        ('missing', 'cannot read .*params_3.npy'),
        ('cut off', 'params_3.npy is cut off'),
        ('total size', 'the shards hold 7,[0-9]+ floats, but'),
        ('float64', 'params_3.npy: expected a flat float32'),
        ('NaN', 'params_3.npy contains NaN'),
        ('pickled', 'params_3.npy: expected a flat float32'),
        ('not NumPy', 'params_3.npy is cut off or not'),
        ('shapes missing', 'cannot read .*params_shapes.json'),
        ('shapes not JSON', 'is not JSON'),
        ('shapes negative', 'expected a list of shapes'),
    ],
)
def test_damaged_shards(shards, what, message):
    folder, _, _ = shards
    damage(folder, what)
    with pytest.raises(InputError, match=message):
        load_openai_pretrained_model(
            make_model(dtype=torch.float32),
            OpenAIShards(str(folder)),
            np.zeros((3, CONFIG.n_embd), np.float32),
            2,
        )


@pytest.mark.parametrize(
    'arguments, message',
    [
        ((50, 17, 2), 'array 0 of params_shapes.json'),
        ((51, 16, 2), 'a vocabulary of 51 symbols'),
        ((50, 16, 3), 'have 2 layers'),
    ],
)
def test_shards_of_another_model(shards, arguments, message):
    with pytest.raises(InputError, match=message):
        OpenAIShards(shards[0]).check(*arguments)


def test_more_positions_than_the_weights_have(shards):
    model = DoubleHeadModel(Config(**{**CONFIG.__dict__, 'n_ctx': 41}))
    with pytest.raises(InputError, match='40 positions; lower --n_ctx'):
        load_openai_pretrained_model(
            model, OpenAIShards(shards[0]), np.zeros((3, CONFIG.n_embd), np.float32), 2
        )


@pytest.mark.parametrize('n', [1, 2, 5, 16])
def test_endings_that_are_alike_score_alike(n):
    """To the last bit, in float32: the original then predicts the first."""
    model = make_model(dtype=torch.float32).eval()
    stories = [
        story._replace(branches=story.branches[:1] * 2)
        for story in make_stories([(9, 3 + i % 3, 5) for i in range(n)])
    ]
    with torch.inference_mode():
        logits, _ = model(collate(stories, CONFIG.first_position, share_context=True), lm=False)
    assert torch.equal(logits[:, 0], logits[:, 1])
