"""The names of the files of a model's folder, and where the sample models are."""

import os

from gpt1 import ROOT

SAMPLE_MODEL = os.path.join(ROOT, 'model', 'sample')
SAMPLE_LSTM = os.path.join(ROOT, 'model', 'sample_lstm')  # pre-trained on the same text
ENCODER_FILE = 'encoder_bpe_40000.json'
MERGES_FILE = 'vocab_40000.bpe'
SHAPES_FILE = 'params_shapes.json'
SHARDS = tuple(f'params_{i}.npy' for i in range(10))
MODEL_FILES = (ENCODER_FILE, MERGES_FILE, SHAPES_FILE, *SHARDS)  # as OpenAI published them
HUGGINGFACE_WEIGHTS = ('model.safetensors', 'pytorch_model.bin')
PARAMETERS_FILE = 'best_params'  # of a fine-tuned model
RECORD_FILE = 'run.json'  # of a run, see `gpt1.run.record`
