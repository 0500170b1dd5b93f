"""Small models for the tests, as the scripts write them."""

import functools
import os

import torch
from conftest import GOLDEN

from datasets import TASKS
from gpt1.tasks.task import Task
from gpt1.weights.parameters import save_settings, sign
from gpt1.weights.vocabulary import save_vocabulary
from model_pytorch import Config, DoubleHeadModel, init_weights
from text_utils import TextEncoder

MODEL_DIR = os.path.join(GOLDEN, 'model')  # OpenAI's files: 2 layers, 4 heads, width 32
VOCABULARY = [
    os.path.join(MODEL_DIR, name) for name in ('encoder_bpe_40000.json', 'vocab_40000.bpe')
]
SIZES = {'n_embd': 32, 'n_head': 4, 'n_layer': 2}
NO_DROPOUT = dict.fromkeys(('embd_pdrop', 'attn_pdrop', 'resid_pdrop', 'clf_pdrop'), 0)
CONFIG = Config(n_vocab=30, n_ctx=24, n_embd=16, n_head=2, n_layer=2, **NO_DROPOUT)
REGRESSION = Task(
    name='custom',
    title='Custom',
    layout='text',
    labels=None,
    metrics=('pearson', 'spearman'),
    submission={'test': 'custom.tsv'},
    regression=True,
    mean=3.0,
    std=2.0,
)
# A task for each kind of head: three classes, two classes, both orders, soft labels, choices,
# choices with two texts as context, a number.
SOME_TASKS = {name: TASKS[name] for name in ('mnli', 'sst2', 'qqp', 'stsb', 'rocstories', 'race')}
SOME_TASKS['regression'] = REGRESSION
# Texts of an example of each task
TEXTS = {
    'mnli': ('Ella had no tape.', 'She went to the store.'),
    'sst2': ('Ella had no tape.',),
    'qqp': ('Ella had no tape.', 'Has Ella tape?'),
    'stsb': ('Ella had no tape.', 'Ella had tape at night.'),
    'rocstories': ('Ella had no tape. She went to the store.', 'She took tape.', 'It was happy.'),
    'race': ('Ella had no tape.', 'What did she have?', 'tape', 'a piano', 'no tape', 'the night'),
    'regression': ('Ella had no tape.',),
}


@functools.cache
def encoder() -> TextEncoder:
    return TextEncoder(*VOCABULARY)


def random_model(task: Task, n_ctx: int = 60, seed: int = 0, **sizes) -> DoubleHeadModel:
    """A model in which every bias and gain matters."""
    torch.manual_seed(seed)
    config = Config(n_vocab=encoder().n_vocab, n_ctx=n_ctx, **{**SIZES, **sizes})
    model = DoubleHeadModel(config, task.layout, task.n_out)
    init_weights(model)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.1)
    return model.eval()


def save_finetuned(folder, task: Task, **options) -> DoubleHeadModel:
    """Write best_params and what belongs to it, as train.py does. Returns the model."""
    model = random_model(task, **options)
    values = {**SIZES, 'n_ctx': 512, 'afn': 'gelu', 'n_iter': 7, 'n_batch': 3, 'lr': 1e-4}
    values |= {'embd_pdrop': 0.25, 'attn_pdrop': 0.1, 'resid_pdrop': 0.0, 'clf_pdrop': 0.5}
    save_vocabulary(encoder(), str(folder))
    save_settings(str(folder), values, encoder(), task)
    sign(model, values, task, encoder())
    torch.save(model.state_dict(), os.path.join(folder, 'best_params'))
    return model
