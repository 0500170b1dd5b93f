"""The report of paper.py: tables 2 to 5 and figure 2 beside the published ones."""

import json
from collections.abc import Iterable, Sequence

from datasets import TASKS
from gpt1.paper import published, verdicts
from gpt1.paper.plan import (
    PlannedRun,
    Setup,
    format_seconds,
    own_options,
    pretraining_log,
    read_lines_of,
    record_of,
    states_of,
)
from gpt1.paper.scores import (
    SETS,
    Cell,
    RunScores,
    ZeroShot,
    ablation,
    ablation_average,
    cell_of,
    collect,
    collect_zero_shot,
    layer_curves,
)
from gpt1.paper.tables import PARTS, layers_table, table, table_5, zero_shot_table
from gpt1.paper.zero_shot import DECISIONS
from gpt1.report.pictures import draw
from gpt1.report.report import picture
from gpt1.settings import is_openai_model, is_sample_model
from utils import whole_file

PRETRAINED = {  # what pretrain.py makes, and what for
    'transformer': 'the transformer of figure 2, right',
    'lstm': 'the LSTM of table 5 and of figure 2, right',
}
COLORS = {'cola': 'C0', 'sst2': 'C1', 'race': 'C2', 'dprd': 'C3', 'mnli': 'C0'}


def write_report(
    plan: Sequence[PlannedRun], setup: Setup, tables: Sequence[int], figures: Sequence[int]
) -> str:
    """Write report.md, report.json and the pictures. Returns the path of report.md."""
    by_name = collect(plan, setup)
    found = list(by_name.values())
    lines = ["# The paper's results, reproduced", '']
    if any(r.bold for r in found) or setup.sample_model:
        lines += [
            "**Scores in bold are of made-up data or of weights that are not OpenAI's. They show "
            'how the program works; do not compare them with the paper.**',
            '',
        ]
    if setup.sample_model:
        lines += [
            'One grammar made the pre-training text of the sample models and the made-up data. A '
            "third of that text's lines say whether an ending is right, and almost half say how it "
            'feels. So this shows that the machinery works, not that the paper is right.',
            '',
        ]
    record = {'tables': {}, 'figures': {}, 'runs': {}}
    for number in sorted(tables):
        lines += [f'## Table {number}: {published.TITLES[number]}', '']
        if number == 5:
            lines += _table_5(setup, found, record['tables'])
        else:
            lines += [*table(number, found), '']
            record['tables'][str(number)] = {
                column.title: as_json(cell_of(found, column)) for column in published.TABLES[number]
            }
    if figures:
        lines += _figure_2_left(setup, found, record['figures'])
        lines += _figure_2_right(plan, setup, found, record['figures'])
    lines += ['## What was run on what', '', *items(describe_runs(plan, setup, found))]
    for desc, r in by_name.items():
        scores, noise = (
            {' '.join(filter(None, key)): value for key, value in values.items()}
            for values in (r.scores, r.noise)
        )
        record['runs'][desc] = {**vars(r), 'figures': scores, 'noise': noise}
        del record['runs'][desc]['scores']  # the file calls them figures
    with whole_file(setup.path('report.json')) as f:
        json.dump(record, f, indent=1)
    path = setup.path('report.md')
    with whole_file(path) as f:
        f.write('\n'.join(lines) + '\n')
    return path


def as_json(here: Cell | None) -> dict | None:
    return here and {
        'mean': here.mean,
        'sd': here.spread,
        'seeds': len(here.values),
        'set': PARTS[here.part],
        'made_up': here.bold,
    }


def items(texts: Iterable[str]) -> list[str]:
    return [f'- {text}' for text in texts]


# ------------------------------------------------------------------------------------ the sections


def _table_5(setup, found, record) -> list[str]:
    sentences = verdicts.of_table_5(found)
    record['5 shape'] = sentences
    record['5'] = {
        variant: {
            'avg': as_json(ablation_average(found, variant)),
            **{d: as_json(ablation(found, variant, d)) for d in published.ABLATION_COLUMNS},
        }
        for variant in published.ABLATIONS
    }
    lines = [*table_5(found), '', *items(sentences)]
    if 'lstm' not in setup.pretrained:
        lines.append('- The LSTM needs a text to pre-train on: `--text`.')
    return [*lines, '']


def _figure_2_left(setup, found, record) -> list[str]:
    curves = layer_curves(found, setup.n_layer)
    if not curves:
        return []
    draw_layers(setup.path('figure2-left.png'), curves)
    sentences = verdicts.of_layers(curves)
    record['left'] = {
        f'{name} {part}': [p and p.mean for p in points] for (name, part), points in curves.items()
    }
    record['left shape'] = sentences
    return [
        *['## Figure 2, left: layers transferred', ''],
        *[*layers_table(curves, setup.n_layer), '', *items(sentences)],
        '- Training accuracy is measured on the first 374 training examples.',
        *picture('figure2-left', 'Accuracy by layers transferred, here and in the paper'),
        '',
    ]


def _figure_2_right(plan, setup, found, record) -> list[str]:
    lines = []
    curves = collect_zero_shot(plan, setup)
    if curves:
        draw_zero_shot(setup.path('figure2-right.png'), curves)
        sentences = verdicts.of_zero_shot(curves)
        kind = 'given' if setup.pretrained.get('transformer') != setup.model_dir else 'transformer'
        if kind in curves:
            sentences += verdicts.of_fine_tuning(curves[kind], found)
        record['right'] = {kind: curve.points for kind, curve in curves.items()}
        record['right shape'] = sentences
        lines += ['## Figure 2, right: zero-shot']
        lines += picture('figure2-right', 'Zero-shot scores during pre-training')
        lines += ['', *items(sentences), '', *zero_shot_table(curves), '']
        lines += ['Choices where the paper is silent:', '']
        lines += items(f'{name}: {text}' for name, text in DECISIONS.items())
        for name, part in next(iter(curves.values())).sets.items():
            notes = '; '.join([f'{part["examples"]:,} examples', *part['notes']])
            lines.append(f'- {SETS[name]}: {notes}')
        lines.append('')
    if not setup.pretrained:
        lines += ['Figure 2, right, needs a text to pre-train on: `--text`.', '']
    return lines


def describe_runs(
    plan: Sequence[PlannedRun], setup: Setup, found: Sequence[RunScores]
) -> list[str]:
    """Return the section that says what was run on what."""
    states = states_of(plan, setup)
    done = [state for state in states.values() if state.kind == 'done']
    seconds = sum(state.seconds or 0.0 for state in done)
    texts = [
        f'{len(done)} of {len(plan)} runs are done; sum of run times: {format_seconds(seconds)}'
    ]
    for name, (folder, is_sample) in setup.data.items():
        sizes = next((r.sizes for r in found if r.dataset == name), None)
        if sizes is not None:
            counts = ', '.join(f'{n:,} {part}' for part, n in sizes.items())
            text = f'{TASKS[name].title}: {folder}, {counts} examples'
            texts.append(f'**{text}; made up**' if is_sample else text)
    weights = f'weights: {setup.model_dir}, {setup.n_layer} layers'
    if setup.sample_model:
        weights = f"**{weights}: the sample model, not OpenAI's**"
    elif not is_openai_model(setup.model_dir):
        weights = f"**{weights}: not OpenAI's**"
    devices = sorted({r.device for r in found} - {''})
    records = [record_of(run, setup) for run in plan if states[run.desc].kind != 'missing']
    commits = sorted({commit for done in records for commit in done['commits']})
    return [
        *texts,
        weights,
        *[f"**not the paper's setting: {text}**" for text in own_options(plan)],
        *_describe_pretrainings(setup),
        f'devices: {"; ".join(devices) or "not known"}',
        f'commits: {", ".join(commits) or "not known"}',
    ]


def _describe_pretrainings(setup) -> list[str]:
    """Say how much text each model has read, by the log of pretrain.py."""
    folders = {PRETRAINED[kind]: folder for kind, folder in setup.pretrained.items()}
    if setup.model_dir not in folders.values():
        folders = {'these weights': setup.model_dir, **folders}
    texts = []
    for what, folder in folders.items():
        arguments, *lines = read_lines_of(pretraining_log(folder)) or [{}]
        if lines:
            last = lines[-1]
            n_tokens = last['n_updates'] * arguments['n_windows'] * arguments['n_ctx']
            text = (
                f'pre-training of {what}: {last["n_updates"]:,} updates, {n_tokens:,} tokens, '
                f'perplexity {last["va_perplexity"]:.2f} on held-out text'
            )
            texts.append(f'**{text}; made-up text**' if is_sample_model(folder) else text)
    return texts


# --------------------------------------------------------------------------------------- pictures


def curves_panel(title, curves, **options):
    """A panel of curves: for each its label, its colour, its style, and its points (x, y or None).

    options  of the axes
    """

    def panel(axes):
        from matplotlib.ticker import LogLocator  # here, since it is slow

        for label, color, style, points in curves:
            known = [(x, y) for x, y in points if y is not None]
            axes.plot(*zip(*known), style, color=color, marker='.', label=label)
        axes.set(title=title, **options)
        first, last = axes.get_xlim()
        if options.get('xscale') == 'log':
            if last < 100 * first:  # powers of ten alone would be one or two ticks
                axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter('{x:,.0f}')
            axes.xaxis.set_minor_formatter('')
        axes.grid(alpha=0.3)
        place = {'loc': 'upper center', 'bbox_to_anchor': (0.5, -0.17)}
        axes.legend(frameon=False, fontsize='small', ncols=2, **place)

    return panel


def draw_layers(path: str, curves: dict[tuple[str, str], list]) -> None:
    """Draw figure 2, left, beside the paper's."""

    def panel(title, values):
        drawn = [
            (
                f'{TASKS[name].title} {PARTS[part]}',
                COLORS[name],
                '-' if part == 'valid' else '--',
                enumerate(points),
            )
            for (name, part), points in values.items()
        ]
        labels = {'xlabel': 'parts transferred: embeddings, then layers', 'ylabel': 'accuracy, %'}
        return curves_panel(title, drawn, **labels)

    here = {key: [p and p.mean for p in points] for key, points in curves.items()}
    bold = any(p and p.bold for points in curves.values() for p in points)
    title = "here: not the paper's data or weights" if bold else 'here'
    paper = {key: published.LAYERS[key] for key in curves}
    draw(path, 9.5, 4.5, panel(title, here), panel('paper, figure 2, left', paper))


def draw_zero_shot(path: str, curves: dict[str, ZeroShot]) -> None:
    """Draw figure 2, right, beside the paper's."""

    def panel(title, values):
        drawn = [
            (
                f'{SETS[name]}, {verdicts.MODELS[kind]}',
                COLORS[name],
                '--' if kind == 'lstm' else '-',
                [(max(x, 1), y if y is None else max(y, -0.05)) for x, y in values[name, kind]],
            )
            for kind in verdicts.MODELS
            for name in SETS
            if (name, kind) in values
        ]
        labels = {'xlabel': 'updates of pre-training', 'ylabel': '0: chance, 1: best'}
        return curves_panel(title, drawn, xscale='log', **labels)

    here = {
        (name, kind): curve.scaled(name) for kind, curve in curves.items() for name in curve.points
    }
    paper = {
        key: zip(published.ZERO_SHOT_UPDATES, points) for key, points in published.ZERO_SHOT.items()
    }
    sample = any(part['sample'] for curve in curves.values() for part in curve.sets.values())
    title = 'here: made-up data, 1 is 100 %' if sample else 'here'
    draw(path, 9.5, 5.2, panel(title, here), panel('paper, figure 2, right', paper))
