"""How examples become prompts: a text, and ways to go on between which a language model chooses.

`SETS` has the rules of the paper (section 5), `own_prompts` those of one's own data.
"""

import itertools
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from gpt1.paper.published import PAPER
from gpt1.tasks.data_files import quoted, read_lines
from gpt1.tasks.task import Example, Task
from utils import InputError

WORDS = ('very', 'positive', 'negative')


class Prompt(NamedTuple):
    """A text with ways to go on."""

    where: str  # for messages
    before: tuple[str, ...]  # texts one after the other, each of which is encoded by itself
    endings: tuple[str, ...]
    label: int | None  # the right ending, or the class of a single one; None: not known
    after: str = ''  # a text that follows each ending
    rest: bool = False  # whether only the tokens of that text count


class Rule(NamedTuple):
    """How a data set is asked."""

    # Of the examples, the words of --words and a list for remarks
    prompts: Callable[[list, Sequence[str], list[str]], list[Prompt]]
    total: bool = False  # whether probabilities of endings are compared, not those of a token


def _sentences(examples: list[Example], words, notes) -> list[Prompt]:
    """CoLA: how likely is the sentence?"""
    return [Prompt(f'CoLA, {e.id}', (), e.texts, e.label) for e in examples]


def _opinions(examples: list[Example], words, notes) -> list[Prompt]:
    """SST-2: after the text and `very`, the word for 0 or that for 1?"""
    very, positive, negative = words
    notes.append(f'"{positive}" against "{negative}" after "{very}"')
    endings = negative, positive
    return [Prompt(f'SST-2, {e.id}', (e.texts[0], very), endings, e.label) for e in examples]


def _questions(examples: list[Example], words, notes) -> list[Prompt]:
    """RACE: after the document and the question, which answer?"""
    return [Prompt(f'RACE, {e.id}', e.texts[:2], e.texts[2:], e.label) for e in examples]


# ------------------------------------------------------------------------------ definite pronouns


class Pronoun(NamedTuple):
    """An item of DPRD: a sentence, a pronoun in it, and two candidates for whom it stands for."""

    where: str
    sentence: str
    pronoun: str
    candidates: tuple[str, ...]
    answer: int


def read_dprd(path: str) -> list[Pronoun]:
    """Read a file of DPRD. Raises InputError with the file and the line.

    An item has four lines: the sentence, the pronoun, the candidates with a comma between them, the
    right one. An empty line follows it.
    """
    lines = [(number, line.strip()) for number, line in read_lines(path)]
    # In an item, the number of the line and the place in the list grow alike.
    groups = itertools.groupby(enumerate(lines), lambda pair: pair[1][0] - pair[0])
    items = [[line for _, line in group] for _, group in groups]
    if not items:
        raise InputError(f'{path} is empty: expected pronouns and their candidates')
    return [_pronoun(f'{path}, line {item[0][0]}', [line for _, line in item]) for item in items]


def _pronoun(where: str, lines: list[str]) -> Pronoun:
    if len(lines) != 4:
        raise InputError(
            f'{where}: an item of {len(lines)} lines, expected four: a sentence, a pronoun, two '
            'candidates, the right one'
        )
    sentence, pronoun, names, right = lines
    candidates = tuple(name.strip() for name in names.split(','))
    if len(set(candidates)) != 2 or len(candidates) != 2 or right not in candidates:
        raise InputError(
            f'{where}: the candidates are {names[:40]!r} and the right one is {right[:40]!r}, '
            'expected one of two'
        )
    item = Pronoun(where, sentence, pronoun, candidates, candidates.index(right))
    if find_pronoun(item) is None:
        raise InputError(f'{where}: the sentence has no {pronoun[:40]!r}')
    return item


def find_pronoun(item: Pronoun) -> re.Match | None:
    """Find the first occurrence of the pronoun as a word; the case counts only if it must."""
    pattern = rf'(?<!\w){re.escape(item.pronoun)}(?!\w)'
    return re.search(pattern, item.sentence) or re.search(pattern, item.sentence, re.IGNORECASE)


def is_possessive(before: str, pronoun: str, rest: str) -> bool:
    """Return whether a pronoun is a possessive, given the text before and after it."""
    following = re.match(r'\s+([\w-]+)', rest)
    if following is None or pronoun.lower() != 'her':
        return following is not None and pronoun.lower() in ('his', 'its', 'their')
    last = (before.lower().split() or [''])[-1]
    rule = PAPER['zero_shot']['object']
    is_object = last in rule['before'].split() or following[1].lower() in rule['after'].split()
    return not is_object


def _pronouns(items: list[Pronoun], words, notes) -> list[Prompt]:
    """DPRD: with which candidate in the pronoun's place is the rest of the sentence likelier?"""
    prompts = []
    n_possessive = 0
    for item in items:
        match = find_pronoun(item)
        before, after = item.sentence[: match.start()], item.sentence[match.end() :]
        names = item.candidates
        if is_possessive(before, item.pronoun, after):
            names = tuple(f"{name}'s" for name in names)
            n_possessive += 1
        after = after if re.search(r'\w', after) else ''
        prompts.append(Prompt(item.where, (before,), names, item.answer, after, rest=bool(after)))
    n_last = sum(not prompt.rest for prompt in prompts)
    if n_last:
        notes.append(f'the candidates themselves are compared in {n_last:,}')
    if n_possessive:
        notes.append(f"a name has 's in {n_possessive:,}")
    return prompts


SETS = {
    'cola': Rule(_sentences),
    'sst2': Rule(_opinions, total=True),
    'race': Rule(_questions),
    'dprd': Rule(_pronouns),
}


# ------------------------------------------------------------------------------ data of one's own


def own_task(template: str, answers: Sequence[str]) -> Task:
    """Return the task of a file that is asked with a template, see `own_prompts`."""
    layout = 'pair' if re.search(r'\{text[12]\}', template) else 'text'
    return Task(
        name='custom',
        title='Custom',
        layout=layout if answers else 'choices',
        labels=tuple(answer.partition('=')[0].strip() for answer in answers) or None,
        metrics=('accuracy',),
        submission={'test': 'custom.tsv'},
        first_label=None if answers else '1',
    )


def own_prompts(
    task: Task, examples: list[Example], template: str, answers: Sequence[str]
) -> list[Prompt]:
    """Make prompts of examples of one's own.

    template  what is asked: {} stands for an answer, {text}, {text1}, {text2} or {context} for a
              text of the example. Without any of these, the text comes before it
    answers   the same for all examples, each an ANSWER or CLASS=ANSWER; none: their choices

    Raises InputError.
    """
    names = {'text': ('text',), 'pair': ('text1', 'text2'), 'choices': ('context',)}[task.layout]
    endings = tuple(answer.rpartition('=')[2].strip() for answer in answers)
    head, _, after = template.partition('{}')
    prompts = []
    for example in examples:
        texts = dict(zip(names, example.texts))
        try:
            filled = [part.format(**texts) for part in (head, after)]
        except (KeyError, ValueError, IndexError, AttributeError) as error:
            raise InputError(
                f'--template {template!r}: expected {{}} once, for the answer, and no other names '
                f'than {quoted(names)}: {error}'
            ) from error
        before = (filled[0],) if '{' in template.replace('{}', '') else (*texts.values(), filled[0])
        choices = endings or example.texts[1:]
        prompts.append(Prompt(example.id, before, choices, example.label, filled[1]))
    return prompts
