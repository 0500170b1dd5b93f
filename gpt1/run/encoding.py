"""Examples to token ids, in flat arrays, cut to the length that a model can read."""

import hashlib
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from tqdm import tqdm

from gpt1.ops.batches import Tree, build_tree
from gpt1.tasks.task import Data, Example, Task, soft_targets
from gpt1.text.workers import map_in_order
from text_utils import TextEncoder

CHUNK = 4096  # texts encoded at a time
MANY = 20_000  # texts; to encode fewer takes less time than to start processes saves


@dataclass
class EncodedDataset:
    """Token ids of the examples of a data set. Arrays, since half a million objects cost much more.

    `lengths` has a 0 where an example has fewer texts than another. `labels` are as in the data, -1
    or NaN where one is not known. The loss compares the logits with `targets`.
    """

    ids: np.ndarray  # [tokens] of all texts, one text after another, not cut
    offsets: np.ndarray  # [texts + 1] the first token of each text
    first_text: np.ndarray  # [examples + 1] the first text of each example
    lengths: np.ndarray  # [examples, most texts of an example] tokens of each text after the cut
    n_cut: int  # examples with a text that was cut
    labels: np.ndarray  # [examples]
    targets: np.ndarray  # [examples] or [examples, n_out]
    names: Sequence[str]  # the ids of the examples in the data
    task: Task
    n_vocab: int

    def __len__(self) -> int:
        return len(self.lengths)

    def tree(self, i: int) -> Tree:
        starts = self.offsets[self.first_text[i] : self.first_text[i + 1]]
        texts = [self.ids[start : start + n] for start, n in zip(starts, self.lengths[i])]
        return build_tree(texts, self.task.layout, self.task.n_context, self.n_vocab)

    def first(self, n: int) -> 'EncodedDataset':
        names = ('lengths', 'labels', 'targets', 'names')
        parts = {name: getattr(self, name)[:n] for name in names}
        return replace(self, first_text=self.first_text[: n + 1], **parts)

    @property
    def n_scores(self) -> int:
        """The number of scores that a model gives an example, at most."""
        if self.task.layout == 'choices':
            return self.lengths.shape[1] - self.task.n_context
        return self.task.n_out

    @property
    def longest(self) -> int:
        """The number of tokens of the longest sequence, special tokens included."""
        sizes = self.lengths.sum(1)
        if self.task.layout == 'choices':
            n = self.task.n_context
            sizes = self.lengths[:, :n].sum(1) + self.lengths[:, n:].max(1, initial=0)
        return int(sizes.max(initial=0)) + (2 if self.task.layout == 'text' else 3)


def cut_lengths(lengths: np.ndarray, task: Task, n_ctx: int) -> np.ndarray:
    """Return how many tokens to keep of each text [examples, texts]: no sequence exceeds n_ctx.

    The texts of a pair share the room: what a short text does not use, the other may. Of multiple
    choices, the question and the choices stay whole, and the end of the context is cut.
    ROCStories keeps the original's rule: n_ctx // 2 - 2 tokens of each text.
    """
    if task.halves:
        return np.minimum(lengths, n_ctx // 2 - 2)
    if task.layout == 'text':
        return np.minimum(lengths, n_ctx - 2)
    room = n_ctx - 3
    if task.layout in ('pair', 'similarity'):
        return share_room(lengths, room)
    n = task.n_context
    choices = lengths[:, n:]
    longest = choices.max(1, initial=0)
    question = lengths[:, 1] if n == 2 else np.zeros_like(longest)
    question, longest = share_room(np.stack([question, longest], 1), room).T
    context = np.minimum(lengths[:, 0], room - question - longest)
    whole = np.stack([context, question], 1)[:, :n]
    return np.concatenate([whole, np.minimum(choices, longest[:, None])], 1)


def share_room(lengths: np.ndarray, room: int) -> np.ndarray:
    """Cut pairs of lengths [examples, 2] to `room` tokens together: the longer text first."""
    first, second = lengths.T
    first = np.minimum(first, np.maximum((room + 1) // 2, room - second))
    second = np.minimum(second, room - first)
    return np.stack([first, second], 1)


def starts(counts: np.ndarray) -> np.ndarray:
    """Return where each of consecutive parts starts, and the end of the last one: [parts + 1]."""
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])


def encode_texts(texts: Sequence[str], encoder: TextEncoder) -> tuple[np.ndarray, np.ndarray]:
    """Return `ids` and `offsets` of an `EncodedDataset`. Many texts are encoded on all cores."""
    n_processes = 1
    if len(texts) >= MANY:
        n_processes = None
        encoder.encode('a')  # loads the tokenizer, which forked processes then have
    chunks = (texts[i : i + CHUNK] for i in range(0, len(texts), CHUNK))
    parts = [encode_chunk(encoder, [])]
    with progress_bar(len(texts), ' texts', 'encoding') as bar:
        for part in map_in_order(encode_chunk, chunks, encoder, n_processes):
            parts.append(part)
            bar.update(len(part[1]))
    ids, lengths = map(np.concatenate, zip(*parts))
    return ids, starts(lengths)


def id_type(encoder: TextEncoder) -> type:
    return np.uint16 if encoder.n_vocab <= 1 << 16 else np.uint32


def encode_chunk(encoder: TextEncoder, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the ids of some texts, one text after another, and the number of ids of each text."""
    different = list(dict.fromkeys(texts))  # the article of several questions is encoded once
    ids = dict(zip(different, encoder.encode_all(different)))
    encoded = [ids[text] for text in texts]
    all_ids = np.fromiter(itertools.chain.from_iterable(encoded), id_type(encoder))
    return all_ids, np.array([len(ids) for ids in encoded], dtype=np.int64)


def encode_dataset(
    examples: Sequence[Example], encoder: TextEncoder, task: Task, n_ctx: int, encode=encode_texts
) -> EncodedDataset:
    """Encode the texts of examples, cut to n_ctx tokens (`encode_dataset` of the original)."""
    texts = [text for example in examples for text in example.texts]
    ids, offsets = encode(texts, encoder)
    n_texts = np.array([len(example.texts) for example in examples], dtype=np.int64)
    whole = np.zeros((len(n_texts), n_texts.max(initial=0)), dtype=np.int64)
    whole[np.arange(whole.shape[1]) < n_texts[:, None]] = np.diff(offsets)
    lengths = cut_lengths(whole, task, n_ctx)
    is_real = task.soft_labels or task.regression
    unknown, dtype = (np.nan, np.float64) if is_real else (-1, np.int64)
    labels = targets = np.array([unknown if e.label is None else e.label for e in examples], dtype)
    if task.soft_labels:
        targets = soft_targets(labels).astype(np.float32)
    elif task.regression:
        targets = ((labels - task.mean) / task.std).astype(np.float32)
    return EncodedDataset(
        ids=ids,
        offsets=offsets,
        first_text=starts(n_texts),
        lengths=lengths,
        n_cut=int((lengths < whole).any(1).sum()),
        labels=labels,
        targets=targets,
        names=[example.id for example in examples],
        task=task,
        n_vocab=encoder.n_vocab,
    )


@dataclass
class EncodedData:
    """An encoded `datasets.Data`: the training set, and validation and test sets by name."""

    train: EncodedDataset
    valid: dict[str, EncodedDataset]
    test: dict[str, EncodedDataset]

    @property
    def sets(self) -> dict[str, EncodedDataset]:
        """All sets by name: 'training', 'validation', 'test', or 'test matched' and so on."""
        sets = {'training': self.train}
        for kind, parts in (('validation', self.valid), ('test', self.test)):
            for name, data in parts.items():
                sets[kind if len(parts) == 1 else f'{kind} {name}'] = data
        return sets

    @property
    def longest(self) -> int:
        return max(data.longest for data in self.sets.values())

    @property
    def n_cut(self) -> dict[str, int]:
        """The number of examples that are cut, by set; without the sets that have none."""
        return {name: data.n_cut for name, data in self.sets.items() if data.n_cut}

    def describe(self, n_ctx: int) -> str:
        counts = [f'{len(data):,} {name}' for name, data in self.sets.items()]
        text = f'{", ".join(counts)} examples; the longest sequence has {self.longest} tokens'
        if self.n_cut:
            n_cut = sum(self.n_cut.values())
            text += f'; {n_cut:,} examples are cut: {self.train.task.cut_rule(n_ctx)}'
        return text


def encode_data(
    data: Data, encoder: TextEncoder, task: Task, n_ctx: int, encode=encode_texts
) -> EncodedData:
    train, valid, test = (
        {name: encode_dataset(part, encoder, task, n_ctx, encode) for name, part in parts.items()}
        for parts in ({'train': data.train}, data.valid, data.test)
    )
    return EncodedData(train['train'], valid, test)


def progress_bar(total: int, unit: str, what: str, **options) -> tqdm:
    """A bar for a terminal, which appears after a second and leaves nothing behind."""
    options |= {'leave': False, 'dynamic_ncols': True, 'delay': 1, 'disable': None}
    return tqdm(total=total, unit=unit, desc=what, **options)


def array_hash(arrays: Iterable[np.ndarray]) -> str:
    """Return 16 hexadecimal digits that differ if a number or a shape differs."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(str(array.shape).encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]
