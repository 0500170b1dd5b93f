"""The names of the files of a model's folder, and where the sample models are."""

import os

from gpt1 import ROOT

SAMPLE_MODEL = os.path.join(ROOT, 'model', 'sample')


SAMPLE_LSTM = os.path.join(ROOT, 'model', 'sample_lstm')  # pre-trained on the same text


ENCODER_FILE = 'encoder_bpe_40000.json'


MERGES_FILE = 'vocab_40000.bpe'


SHAPES_FILE = 'params_shapes.json'


N_SHARDS = 10
RECORD_FILE = 'run.json'  # of a run, see `gpt1.run.record`


MODEL_FILES = (  # as OpenAI published them
    ENCODER_FILE,
    MERGES_FILE,
    SHAPES_FILE,
    *(f'params_{i}.npy' for i in range(N_SHARDS)),
)


HUGGINGFACE_WEIGHTS = ('model.safetensors', 'pytorch_model.bin')
