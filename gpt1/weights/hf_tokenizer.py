"""A tokenizer for Hugging Face's libraries that gives the ids of `TextEncoder` for English text.

The library `tokenizers` knows neither ftfy nor spaCy. Here their rules are translated to patterns
that insert a space wherever spaCy starts a new token. Then the text is lower-cased, which must
come last since the rules depend on capitals, and is split at spaces.

Not translated are: the repair of text that was decoded with the wrong encoding, letters of full
width, the order in which spaCy takes several prefixes and suffixes off one word, a few more rules
for words with rare marks, and scripts other than Latin, Greek and Cyrillic.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.normalizers import Normalizer, Replace

from gpt1.text.spacy2 import CURRENCY, PUNCTUATION, QUOTES, EnglishTokenizer
from text_utils import DASHES_AND_DOTS, TextEncoder, english_tokenizer

LIGATURES = {'ﬀ': 'ff', 'ﬁ': 'fi', 'ﬂ': 'fl', 'ﬃ': 'ffi', 'ﬄ': 'ffl', 'ﬅ': 'ſt', 'ﬆ': 'st'}
ENTITIES = {'&lt;': '<', '&gt;': '>', '&quot;': '"', '&amp;': '&'}

# `text_standardize` puts spaces around runs of these marks. spaCy keeps runs of the first ones
# together, and splits the other runs into single marks.
RUNS = '-~/|'
SINGLE = '!";?+,)(*[]}{_'
MARKS = RUNS + SINGLE

# The patterns are for the library Oniguruma. There, a lookbehind may have any length, and \K sets
# the start of what is replaced.
WORD_START = '(?<![^ ])'
WORD_END = '(?![^ ])'
AFTER_SPACE = r'(?:\A| )'  # The same as WORD_START, for use in a lookbehind.
SCRIPTS = r'[\p{Latin}\p{Greek}\p{Cyrillic}]'
LOWER = rf'[\p{{Ll}}&&{SCRIPTS}]'
UPPER = rf'[\p{{Lu}}&&{SCRIPTS}]'
LETTER = rf'[[\p{{Lu}}\p{{Ll}}]&&{SCRIPTS}]'
ICON = r'\p{So}'
# A position in a word that is a URL, or would be one if it ended here. The bounds keep the time for
# a long word linear.
IN_URL = rf'(?<={AFTER_SPACE}[a-z0-9.@-]{{0,99}}[a-z0-9]\.[a-z]{{2}}[^ ]{{0,99}})'

# One step separates one prefix or suffix. Words with more than three are rare.
N_PASSES = 3


def huggingface_tokenizer(encoder: TextEncoder, special_tokens: Sequence[str] = ()) -> Tokenizer:
    """Make a tokenizer of the library `tokenizers`, which `save` writes as `tokenizer.json`.

    Args:
        encoder: the text encoder whose ids the tokenizer gives.
        special_tokens: the tokens whose ids are n_vocab, n_vocab + 1, and so on.
    """
    # `tokenizers` refuses merges whose result has no id. OpenAI's files have no such merges.
    merges = [pair for pair in encoder.bpe_ranks if ''.join(pair) in encoder.encoder]
    model = models.BPE(encoder.encoder, merges, unk_token='<unk>', end_of_word_suffix='</w>')
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [
            *fixing_steps(),
            *standardizing_steps(),
            *splitting_steps(english_tokenizer()),
            normalizers.Lowercase(),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.CharDelimiterSplit(' ')
    tokenizer.decoder = decoders.BPEDecoder(suffix='</w>')
    tokenizer.add_special_tokens(list(special_tokens))
    return tokenizer


def fixing_steps() -> list[Normalizer]:
    """What `fix_text` does, but for text that was decoded with the wrong encoding."""
    controls = r'[\x00-\x08\x0B\x0E-\x1F\x7F\x{206A}-\x{206F}\x{FEFF}\x{FFF9}-\x{FFFC}]'
    return [
        *[Replace(entity, character) for entity, character in ENTITIES.items()],
        *[Replace(ligature, letters) for ligature, letters in LIGATURES.items()],
        Replace(Regex('[\u02bc\u2018-\u201b]'), "'"),
        Replace(Regex('[\u201c-\u201f]'), '"'),
        Replace(Regex(r'\r\n?|[\x{85}\x{2028}\x{2029}]'), '\n'),
        Replace(Regex(controls), ''),
        normalizers.NFC(),
    ]


def standardizing_steps() -> list[Normalizer]:
    """What `text_standardize` does, and splitting runs of marks."""
    single = f'[{escape(SINGLE)}]'
    edges = [f'(?<=[^ ])(?={single})|(?<={single})(?=[^ ])']
    edges += [f'(?<={mark})(?!{mark})|(?<!{mark})(?={mark})' for mark in map(escape, RUNS)]
    return [
        *[Replace(mark, plain) for mark, plain in DASHES_AND_DOTS],
        Replace(Regex('|'.join(edges)), ' '),
        Replace(Regex(r'[^\S\n]+'), ' '),
        Replace(Regex(r' ?\n[ \n]*'), ' \n '),
        Replace(Regex(r'\A[ \n]+|[ \n]+\z'), ''),
    ]


def splitting_steps(rules: EnglishTokenizer) -> list[Normalizer]:
    """What spaCy does: insert a space before each token that is not the first of its word."""
    # Exceptions with other characters do not occur: marks have spaces around them now.
    exceptions = {
        word: tokens
        for word, tokens in rules.exceptions.items()
        if not set(word) & set(MARKS + '’ \t\n\xa0')
    }
    prefix = prefix_step(rules, exceptions)
    suffix = suffix_step(rules, exceptions)
    return [
        icon_step(),
        *[prefix] * N_PASSES,
        *[suffix] * N_PASSES,
        infix_step(rules, exceptions),
    ]


def icon_step() -> Replace:
    """Separate emoji and other symbols, and the full stop after degrees like °C."""
    around = f'(?<=[^ ])(?={ICON})|(?<={ICON})(?=[^ ])'
    # At the start of a word, °c. is different: c. is an exception.
    degrees = r'(?<=°[CFK])|(?<=[^ ]°[cfk])'
    return Replace(Regex(rf'{around}|(?:{degrees})(?=\.{WORD_END})'), ' ')


def prefix_step(rules: EnglishTokenizer, exceptions: dict[str, list[str]]) -> Replace:
    """Separate one prefix of each word, but not of exceptions like 'em."""
    marks = [
        mark for mark in [*PUNCTUATION, *QUOTES, *CURRENCY, '§', '%', '='] if mark not in MARKS
    ]
    # spaCy takes '' as two prefixes, and of all others the longest.
    marks.remove("''")
    marks.sort(key=len, reverse=True)
    prefix = rf'(?>\.\.+|{one_of(marks)})'
    kept = one_of(word for word in exceptions if rules.prefix.match(word))
    keep = f"(?!(?:{kept})(?:[.:']|'s)*{WORD_END})"
    return Replace(Regex(rf'{WORD_START}{keep}{prefix}\K(?=[^ ])'), ' ')


def suffix_step(rules: EnglishTokenizer, exceptions: dict[str, list[str]]) -> Replace:
    """Separate one suffix of each word, but not of exceptions like Mr."""
    single = [mark for mark in [*PUNCTUATION, *QUOTES] if mark not in MARKS and len(mark) == 1]
    others = [mark for mark in single if mark not in "'`"]
    units = [unit for unit in [*rules.units, *CURRENCY] if not set(unit) & set(MARKS)]
    before_stop = rf'(?<=[0-9{escape("%²:" + "".join(single))}])|(?<={LOWER})|(?<={UPPER}{UPPER})'
    patterns = [
        f'(?<=[^ ])(?=(?:{one_of(others)}){WORD_END})',
        # Two quotes are one suffix, and so are all dots at the end.
        f"(?<=[^ '])(?='{{1,2}}{WORD_END})",
        f'(?<=[^ `])(?=`{{1,2}}{WORD_END})',
        rf'(?<=[^ .])(?=\.\.+{WORD_END})',
        rf'(?:{before_stop})(?=\.{WORD_END})',
        f"(?<=[^ ])(?='[sS]{WORD_END})(?!{IN_URL})",
        f'(?<=[0-9])(?=(?:{one_of(units)}){WORD_END})(?!{IN_URL})',
    ]
    kept = []
    for word in exceptions:
        start = rules.find_suffix(word, 0, len(word))
        if start < len(word):
            kept.append((word[:start], word[start:]))
    return Replace(Regex(f'(?:{"|".join(patterns)})(?!{positions(kept)})'), ' ')


def infix_step(rules: EnglishTokenizer, exceptions: dict[str, list[str]]) -> Replace:
    """Separate the tokens inside of words: those of exceptions like can't, and infixes."""
    splits = []
    kept = []
    for word, tokens in exceptions.items():
        ends = [len(''.join(tokens[:n])) for n in range(1, len(tokens))]
        splits += [(word[:end], word[end:]) for end in ends]
        for match in rules.infix.finditer(word):
            kept += [(word[:end], word[end:]) for end in match.span() if end not in ends]
    infixes = [
        r'(?<=[^ .])(?=\.\.+[^ .])|(?<=\.\.)(?=[^ .])',
        r'(?<=[0-9])(?=\^[0-9])|(?<=[0-9]\^)(?=[0-9])',
        rf'(?<={LOWER})(?=\.{UPPER})|(?<={LOWER}\.)(?={UPPER})',
        f'(?<={LETTER})(?=[:<>=]{LETTER})|(?<={LETTER}[:<>=])(?={LETTER})',
    ]
    inside = f'(?:{"|".join(infixes)})(?!{positions(kept)})(?!{IN_URL})'
    return Replace(Regex(f'{positions(splits)}|{inside}'), ' ')


def positions(splits: Iterable[tuple[str, str]]) -> str:
    """A pattern for the positions between the two parts of the given words."""
    heads = defaultdict(list)
    for head, tail in splits:
        heads[tail].append(head)
    patterns = [
        f'(?={escape(tail)}{WORD_END})(?<={AFTER_SPACE}(?:{one_of(heads[tail])}))' for tail in heads
    ]
    return f'(?:{"|".join(patterns)})'


def one_of(words: Iterable[str]) -> str:
    """A pattern that matches one of the words."""
    return '|'.join(map(escape, words))


def escape(text: str) -> str:
    """Escape the characters that have a meaning in a pattern, or in its square brackets."""
    return ''.join('\\' + c if c in r'\^$.|?*+()[]{}-&' else c for c in text)
