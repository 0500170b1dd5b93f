"""A tokenizer for Hugging Face's libraries that gives the ids of `TextEncoder` for English prose.

The library `tokenizers` knows neither ftfy nor spaCy, and transformers' own tokenizer of GPT-1
splits contractions otherwise (didn ' t). Here spaCy's rules are translated to patterns that insert
a space wherever it starts a new token. Then the text is lower-cased, which must come last since the
rules depend on capitals, and is split at spaces.

Ids differ for text with HTML, emoji, formulas or broken encoding, for some URLs, for words with
more than two marks at one end, and for scripts other than Latin, Greek and Cyrillic. Of 2,500 texts
of the paper's data sets, none differs.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.normalizers import Normalizer, Replace

from gpt1.text.spacy2 import CURRENCY, PUNCTUATION, QUOTES, EnglishTokenizer
from gpt1.weights.vocabulary import known_merges
from text_utils import DASHES_AND_DOTS, TextEncoder, english_tokenizer

# `text_standardize` puts spaces around runs of these marks. spaCy keeps runs of the first ones
# together, and splits the other runs into single marks.
RUNS = '-~/|'
SINGLE = '!";?+,)(*[]}{_'
MARKS = RUNS + SINGLE

# The patterns are for the library Oniguruma. There, a lookbehind may have any length, and \K sets
# the start of what is replaced.
WORD_START = '(?<![^ ])'
WORD_END = '(?![^ ])'
AFTER_SPACE = r'(?:\A| )'  # the same as WORD_START, for use in a lookbehind
LOWER = r'[\p{Ll}&&[\p{Latin}\p{Greek}\p{Cyrillic}]]'
UPPER = r'[\p{Lu}&&[\p{Latin}\p{Greek}\p{Cyrillic}]]'

N_PASSES = 2  # one step separates one prefix or suffix


def huggingface_tokenizer(encoder: TextEncoder, special_tokens: Sequence[str] = ()) -> Tokenizer:
    """Return a tokenizer of the library `tokenizers`, which `save` writes as `tokenizer.json`.

    special_tokens  the tokens whose ids are n_vocab, n_vocab + 1, and so on
    """
    model = models.BPE(
        encoder.encoder, known_merges(encoder), unk_token='<unk>', end_of_word_suffix='</w>'
    )
    tokenizer = Tokenizer(model)
    steps = [*standardizing_steps(), *splitting_steps(english_tokenizer()), normalizers.Lowercase()]
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.pre_tokenizer = pre_tokenizers.CharDelimiterSplit(' ')
    tokenizer.decoder = decoders.BPEDecoder(suffix='</w>')
    tokenizer.add_special_tokens(list(special_tokens))
    return tokenizer


def standardizing_steps() -> list[Normalizer]:
    """Return the steps of `fix_text` and `text_standardize`; they split runs of marks, too."""
    single = f'[{escape(SINGLE)}]'
    edges = [f'(?<=[^ ])(?={single})|(?<={single})(?=[^ ])']
    edges += [f'(?<={mark})(?!{mark})|(?<!{mark})(?={mark})' for mark in map(escape, RUNS)]
    return [
        Replace(Regex('[\u02bc\u2018-\u201b]'), "'"),
        Replace(Regex('[\u201c-\u201f]'), '"'),
        Replace(Regex(r'\r\n?|[\x{85}\x{2028}\x{2029}]'), '\n'),
        Replace(Regex(r'[\x00-\x08\x0B\x0E-\x1F\x7F\x{FEFF}]'), ''),
        normalizers.NFC(),
        *[Replace(mark, plain) for mark, plain in DASHES_AND_DOTS],
        Replace(Regex('|'.join(edges)), ' '),
        Replace(Regex(r'[^\S\n]+'), ' '),
        Replace(Regex(r' ?\n[ \n]*'), ' \n '),
        Replace(Regex(r'\A[ \n]+|[ \n]+\z'), ''),
    ]


def splitting_steps(rules: EnglishTokenizer) -> list[Normalizer]:
    """Return the steps of spaCy: a space before each token that is not the first of its word."""
    # Exceptions with other characters do not occur: marks have spaces around them now.
    exceptions = {
        word: tokens
        for word, tokens in rules.exceptions.items()
        if not set(word) & set(MARKS + '’ \t\n\xa0')
    }
    prefix, suffix = prefix_step(rules, exceptions), suffix_step(rules, exceptions)
    return [*[prefix] * N_PASSES, *[suffix] * N_PASSES, infix_step(exceptions)]


def prefix_step(rules: EnglishTokenizer, exceptions: dict[str, list[str]]) -> Replace:
    """Separate one prefix of each word, but not of exceptions like 'em."""
    marks = {*PUNCTUATION, *QUOTES, *CURRENCY} - {*MARKS, "''"}  # '' are two prefixes
    longest_first = sorted(marks, key=lambda mark: (-len(mark), mark))
    prefix = rf'(?>\.\.+|{one_of(longest_first)})'
    kept = one_of(word for word in exceptions if rules.prefix.match(word))
    keep = f"(?!(?:{kept})(?:[.:']|'s)*{WORD_END})"
    return Replace(Regex(rf'{WORD_START}{keep}{prefix}\K(?=[^ ])'), ' ')


def suffix_step(rules: EnglishTokenizer, exceptions: dict[str, list[str]]) -> Replace:
    """Separate one suffix of each word, but not of exceptions like Mr."""
    marks = [mark for mark in [*PUNCTUATION, *QUOTES] if mark not in MARKS and len(mark) == 1]
    others = one_of(mark for mark in marks if mark not in "'`")
    units = [unit for unit in [*rules.units, *CURRENCY] if not set(unit) & set(MARKS)]
    before_stop = rf'(?<=[0-9{escape("%²:" + "".join(marks))}])|(?<={LOWER})|(?<={UPPER}{UPPER})'
    patterns = [
        f'(?<=[^ ])(?=(?:{others}){WORD_END})',
        # Two quotes are one suffix, and so are all dots at the end.
        f"(?<=[^ '])(?='{{1,2}}{WORD_END})",
        f'(?<=[^ `])(?=`{{1,2}}{WORD_END})',
        rf'(?<=[^ .])(?=\.\.+{WORD_END})',
        rf'(?:{before_stop})(?=\.{WORD_END})',
        f"(?<=[^ ])(?='[sS]{WORD_END})",
        f'(?<=[0-9])(?=(?:{one_of(units)}){WORD_END})',
    ]
    starts = {word: rules.find_suffix(word, 0, len(word)) for word in exceptions}
    kept = [(word[:i], word[i:]) for word, i in starts.items() if i < len(word)]
    return Replace(Regex(f'(?:{"|".join(patterns)})(?!{positions(kept)})'), ' ')


def infix_step(exceptions: dict[str, list[str]]) -> Replace:
    """Separate the tokens inside of words: those of exceptions like can't, and infixes."""
    splits = []
    for word, tokens in exceptions.items():
        ends = [len(''.join(tokens[:n])) for n in range(1, len(tokens))]
        splits += [(word[:end], word[end:]) for end in ends]
    infixes = r'(?<=[^ .])(?=\.\.+[^ .])|(?<=\.\.)(?=[^ .])'
    infixes += rf'|(?<={LOWER})(?=\.{UPPER})|(?<={LOWER}\.)(?={UPPER})'
    return Replace(Regex(f'{positions(splits)}|{infixes}'), ' ')


def positions(splits: Iterable[tuple[str, str]]) -> str:
    """Return a pattern for the positions between the two parts of the given words."""
    heads = defaultdict(list)
    for head, tail in splits:
        heads[tail].append(head)
    patterns = [
        f'(?={escape(tail)}{WORD_END})(?<={AFTER_SPACE}(?:{one_of(heads[tail])}))' for tail in heads
    ]
    return f'(?:{"|".join(patterns)})'


def one_of(words: Iterable[str]) -> str:
    """Return a pattern that matches one of the words."""
    return '|'.join(map(escape, words))


def escape(text: str) -> str:
    """Escape the characters that have a meaning in a pattern, or in its square brackets."""
    return ''.join('\\' + c if c in r'\^$.|?*+()[]{}-&' else c for c in text)
