"""The report of paper.py: tables 2 to 5 and figure 2 beside the published ones."""

import itertools
import json
import os
from collections.abc import Iterable, Sequence

from datasets import TASKS
from gpt1.options import PRETRAIN, TRAIN
from gpt1.paper import published, verdicts
from gpt1.paper.pictures import MODELS, draw_layers, draw_zero_shot
from gpt1.paper.plan import (
    PlannedRun,
    Setup,
    State,
    read_lines_of,
    record_of,
    states_of,
)
from gpt1.paper.published import ABLATION_COLUMNS, ABLATIONS, ZERO_SHOT_TITLES
from gpt1.paper.scores import (
    Cell,
    RunScores,
    ZeroShot,
    ablation,
    ablation_average,
    cell,
    collect,
    collect_zero_shot,
    embolden,
    glue_cell,
    layer_curves,
)
from gpt1.report.html import write_html
from gpt1.report.log import metric_title
from gpt1.report.report import markdown_table, picture
from gpt1.settings import is_openai_model, is_sample_model
from utils import whole_file

PARTS = {'test': 'test', 'valid': 'validation', 'train': 'training'}
PARTS['test or valid'] = 'test or validation'  # of GLUE's average
NOT_THE_PAPER = (
    "**Scores in bold are of made-up data or of weights that are not OpenAI's. They show how the "
    'program works; do not compare them with the paper.**'
)
ONE_GRAMMAR = (
    'One grammar made the pre-training text of the sample models and the made-up data. A third of '
    "that text's lines say whether an ending is right, and almost half say how it feels. So this "
    'shows that the machinery works, not that the paper is right.'
)


def write_report(
    plan: Sequence[PlannedRun], setup: Setup, tables: Sequence[int], figures: Sequence[int]
) -> str:
    """Write report.md, report.html, report.json and pictures. Returns the path of report.md."""
    states = states_of(plan)
    by_name = collect(plan, setup, states)
    found = list(by_name.values())
    lines = ["# The paper's results, reproduced", '']
    if any(r.bold for r in found) or setup.sample_model:
        lines += [NOT_THE_PAPER, '']
    if setup.sample_model:
        lines += [ONE_GRAMMAR, '']
    record = {'tables': {}, 'figures': {}, 'runs': {}}
    for number in sorted(tables):
        lines += [f'## Table {number}: {published.TITLES[number]}', '']
        section = table_5 if number == 5 else table
        lines += [*section(number, found, record['tables']), '']
        if number == 5 and 'lstm' not in setup.pretrained:
            lines += ['The LSTM needs a text to pre-train on: `--text`.', '']
    if figures:
        lines += _figure_2_left(setup, layer_curves(found, setup.n_layer), record['figures'])
        curves = collect_zero_shot(plan, setup, states)
        lines += _figure_2_right(setup, curves, found, record['figures'])
    lines += ['## What was run on what', '', *items(describe_runs(plan, setup, states, found))]
    for desc, r in by_name.items():
        scores, noise = (
            {' '.join(filter(None, key)): value for key, value in values.items()}
            for values in (r.scores, r.noise)
        )
        about = {name: r.record[name] for name in ('sizes', 'device')}
        which = {'dataset': r.dataset, 'variant': r.variant, 'seed': r.seed, 'bold': r.bold}
        record['runs'][desc] = {**which, **about, 'figures': scores, 'noise': noise}
    with whole_file(setup.path('report.json')) as f:
        json.dump(record, f, indent=1)
    path = setup.path('report.md')
    with whole_file(path) as f:
        f.write('\n'.join(lines) + '\n')
    write_html(path)
    return path


def items(texts: Iterable[str]) -> list[str]:
    return [f'- {text}' for text in texts]


# ----------------------------------------------------------------------------------------- tables


def cells_of(here: Cell | None) -> list[str]:
    """The cells of a row that say what was found: set, mean, deviation, seeds."""
    if here is None:
        return ['', 'not run', '', '0']
    spread = '' if here.spread is None else f'{here.spread:.1f}'
    return [PARTS[here.part], str(here), spread, str(len(here.values))]


def as_json(here: Cell | None) -> dict | None:
    return here and {
        'mean': here.mean,
        'sd': here.spread,
        'seeds': len(here.values),
        'set': PARTS[here.part],
        'made_up': here.bold,
    }


def table(number: int, found: Sequence[RunScores], record: dict) -> list[str]:
    """Return table 2, 3 or 4 in Markdown, and note its cells in `record`."""
    rows, values = [], record.setdefault(str(number), {})
    for column in published.TABLES[number]:
        here = cell(found, column.dataset, [(column.subset, column.metric)])
        values[column.title] = as_json(here)
        known = published.paper_score(column)
        known = '' if known is None else f'{known:.1f}'
        before = f'{column.best_before:.1f}' + (f' ({column.note})' if column.note else '')
        other = published.reproduced_score(column)
        reproduced = f'{other[1]:.1f} ({other[0]})' if other else ''
        title = metric_title(column.metric)
        rows.append([column.title, title, *cells_of(here), known, before, reproduced])
    if number == 4:
        glue = published.GLUE
        known = [f'{glue["score"]:.1f}', f'{glue["best_before"]:.1f}']
        known.append(f'{glue["reproduced"]:.1f} ({glue["reproduced_by"]})')
        rows.append(['GLUE', 'mean of 9', *cells_of(glue_cell(found)), *known])
    header = ['data set', 'metric', 'set', 'here', 'sd', 'seeds', 'paper', 'best before']
    return markdown_table([*header, 'best reproduction'], rows)


def table_5(number: int, found: Sequence[RunScores], record: dict) -> list[str]:
    """Return table 5 in Markdown, ours and the paper's row by row, with what it shows."""
    rows, values = [], record.setdefault('5', {})
    for variant, paper in ABLATIONS.items():
        here = {'avg': ablation_average(found, variant)}
        here |= {dataset: ablation(found, variant, dataset) for dataset in ABLATION_COLUMNS}
        values[variant] = {name: as_json(value) for name, value in here.items()}
        rows.append([paper['title'], 'here', *('' if c is None else c for c in here.values())])
        rows.append(['', 'paper', *(f'{v:.1f}' for v in (paper['average'], *paper['scores']))])
    record['5 shape'] = sentences = verdicts.of_table_5(found)
    titles = [f'{title} ({metric_title(metric)})' for title, metric in ABLATION_COLUMNS.values()]
    return [*markdown_table(['', '', 'avg', *titles], rows), '', *items(sentences)]


def layers_table(curves: dict[tuple[str, str], list], n_layer: int) -> list[str]:
    """Return the points of figure 2, left, in Markdown."""
    names = ['nothing', 'embeddings', '1 layer', *(f'{n} layers' for n in range(2, n_layer + 1))]
    titles = [f'{TASKS[name].title} {PARTS[part]}' for name, part in curves]
    columns = [['' if point is None else str(point) for point in c] for c in curves.values()]
    if n_layer == 12:
        titles += [f'paper: {title}' for title in titles]
        columns += [[f'{x:.1f}' for x in published.LAYERS[name][part]] for name, part in curves]
    return markdown_table(['transferred', *titles], list(zip(names, *columns, strict=True)))


def zero_shot_table(curves: dict[str, ZeroShot]) -> list[str]:
    """Return the points of figure 2, right, in Markdown."""
    header = ['set', 'model', 'updates', 'epochs', 'score', 'standard error', 'chance']
    rows = []
    for name, kind in itertools.product(published.ZERO_SHOT, curves):
        curve = curves[kind]
        if name not in curve.points:
            continue
        title, chance = ZERO_SHOT_TITLES[name], f'{published.ZERO_SHOT[name]["chance"]:.0f}'
        for (update, value), (_, scaled) in zip(curve.points[name], curve.scaled(name)):
            epochs = f'{curve.epochs[update]:.2f}' if update in curve.epochs else ''
            texts = [f'{value:.1f}', f'{curve.error(name, value):.1f}', chance, f'{scaled:.3f}']
            texts = [embolden(text, curve.sets[name]['sample']) for text in texts]
            rows.append([title, MODELS[kind], f'{update:,}', epochs, *texts])
    return markdown_table([*header, 'on the scale of figure 2'], rows)


# --------------------------------------------------------------------------------------- figure 2


def _figure_2_left(setup, curves, record) -> list[str]:
    if not curves:
        return []
    draw_layers(setup.path('figure2-left.png'), curves)
    record['left shape'] = sentences = verdicts.of_layers(curves)
    record['left'] = {
        f'{name} {part}': [p and p.mean for p in points] for (name, part), points in curves.items()
    }
    return [
        *['## Figure 2, left: layers transferred', ''],
        *[*layers_table(curves, setup.n_layer), '', *items(sentences)],
        '- Training accuracy is measured on the first 374 training examples.',
        *picture('figure2-left', 'Accuracy by layers transferred, here and in the paper'),
        '',
    ]


def _figure_2_right(setup, curves, found, record) -> list[str]:
    lines = ['## Figure 2, right: zero-shot', '']
    if not setup.pretrained:
        lines += ['The curves need a text to pre-train on: `--text`.', '']
    if not curves:
        return lines
    draw_zero_shot(setup.path('figure2-right.png'), curves)
    record['right'] = {kind: curve.points for kind, curve in curves.items()}
    kind = 'given' if setup.pretrained.get('transformer') != setup.model_dir else 'transformer'
    record['right shape'] = verdicts.of_fine_tuning(curves[kind], found) if kind in curves else []
    lines += picture('figure2-right', 'Zero-shot scores during pre-training')[1:]
    lines += ['', *items(record['right shape']), '', *zero_shot_table(curves), '']
    lines += ['Choices where the paper is silent:', '']
    lines += items(': '.join(pair) for pair in published.PAPER['zero_shot']['decisions'].items())
    for name, part in next(iter(curves.values())).sets.items():
        first = f'{ZERO_SHOT_TITLES[name]}: {part["examples"]:,} examples'
        lines += items(['; '.join([first, *part['notes']])])
    return [*lines, '']


# --------------------------------------------------------------------------- what was run on what


def describe_runs(
    plan: Sequence[PlannedRun], setup: Setup, states: dict[str, State], found: Sequence[RunScores]
) -> list[str]:
    """Return the section that says what was run on what."""
    done = [state for state in states.values() if state.kind == 'done']
    minutes = sum(state.seconds or 0.0 for state in done) / 60
    texts = [f'{len(done)} of {len(plan)} runs are done; sum of run times: {minutes:,.0f} min']
    sizes = {r.dataset: r.record['sizes'] for r in found}
    for name, (folder, is_sample) in setup.data.items():
        if name in sizes:
            counts = ', '.join(f'{n:,} {part}' for part, n in sizes[name].items())
            text = f'{TASKS[name].title}: {folder}, {counts} examples'
            texts.append(f'**{text}; made up**' if is_sample else text)
    kind = '' if is_openai_model(setup.model_dir) else ": not OpenAI's"
    kind = ": the sample model, not OpenAI's" if setup.sample_model else kind
    texts.append(embolden(f'weights: {setup.model_dir}, {setup.n_layer} layers{kind}', bool(kind)))
    for script in (TRAIN, PRETRAIN):
        words = setup.train_options if script == TRAIN else setup.pretrain_options
        if words and any(run.script == script for run in plan):
            texts.append(f"**not the paper's setting: {script} {' '.join(words)}**")
    models = dict.fromkeys([setup.model_dir, *setup.pretrained.values()])
    texts += filter(None, map(describe_pretraining, models))
    records = [record_of(run) for run in plan if states[run.desc].kind != 'missing']
    commits = sorted({commit for record in records for commit in record['commits']})
    devices = sorted({r.record['device'] for r in found})
    texts.append(f'devices: {"; ".join(devices) or "not known"}')
    return [*texts, f'commits: {", ".join(commits) or "not known"}']


def describe_pretraining(folder: str) -> str:
    """Say how much text a model has read, by the log of pretrain.py; '' if there is none."""
    arguments, *lines = read_lines_of(os.path.join(folder, 'log.jsonl')) or [{}]
    if not lines:
        return ''
    n_updates, perplexity = lines[-1]['n_updates'], lines[-1]['va_perplexity']
    n_tokens = n_updates * arguments['n_windows'] * arguments['n_ctx']
    text = (
        f'pre-training of {folder}: {n_updates:,} updates, {n_tokens:,} tokens, perplexity '
        f'{perplexity:.2f} on held-out text'
    )
    return f'**{text}; made-up text**' if is_sample_model(folder) else text
