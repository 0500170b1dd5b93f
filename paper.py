"""The whole paper from one command: its tables 2 to 5 and its figure 2.

    python paper.py
    python paper.py --tables 5 --figures 2 --datasets mnli race --seeds 1 2 3
    python paper.py --list

runs train.py, pretrain.py and gpt1.paper.zero_shot as often as the tables and figures need, and
writes report.md, report.html, report.json and pictures to --out. It can be stopped and restarted at
any time. Finished runs are skipped, and so are runs that another process holds.

--list prints the commands, one a line, with their states. Finished or blocked commands are
commented out. So they can be given to other programs, on several machines that share the folder:

    python paper.py --list | xargs -d '\\n' -n 1 -P 4 sh -c

Without real data and weights everything is done in miniature: with made-up data, and with a small
transformer and a small LSTM that come with the program, pre-trained on made-up text. The logs of
their pre-training have the right half of figure 2. With real weights, the LSTM and the right half
of figure 2 need --text, a text to pre-train on.
"""

import os
import sys
from argparse import Namespace

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)  # Python leaves it out with PYTHONSAFEPATH

import gpt1.startup  # noqa: F401 (before the import of any library)

from datasets import make_samples
from gpt1.options import TRAIN, Number
from gpt1.paper.plan import (
    ALL_DATASETS,
    RUNS_OF_TABLE,
    check_options,
    find_setup,
    make_plan,
    print_list,
)
from gpt1.paper.published import ZERO_SHOT_TITLES
from gpt1.parsing import Parser, check_paths
from utils import InputError, check_writable, exit_status


def parse_args(argv=None) -> Namespace:
    """Parse the command line. Ends the process if something is wrong."""
    parser = Parser(prog='paper.py', usage='python paper.py [options]', description=__doc__)
    add = parser.add_argument_group('what to do').add_argument
    several = {'nargs': '*', 'type': int}
    tables = 'which tables (default: all; with --figures alone: none)'
    add('--tables', **several, choices=tuple(RUNS_OF_TABLE), help=tables)
    figures = 'which figures (default: all; with --tables alone: none)'
    add('--figures', **several, choices=(2,), help=figures)
    names = 'which data sets (default: those in --data_dir; if none is there, all, made up): '
    names += ', '.join(ALL_DATASETS)
    add('--datasets', nargs='+', choices=ALL_DATASETS, metavar='NAME', help=names)
    seed = Number(int, 0, 2**32 - 1)
    add('--seeds', nargs='+', type=seed, default=[42], help='a run for each')
    add('--list', action='store_true', help='print the commands; run nothing')
    add('--report', action='store_true', help='write the report; run nothing')

    add = parser.add_argument_group('with what').add_argument
    add('--data_dir', help='folder of the data (default: data/, or made-up data)')
    add('--model_dir', help='folder of the weights (default: model/, or our sample)')
    text = (
        'text files or folders to pre-train the LSTM and the transformer of figure 2 on (default: '
        'none; the sample models are pre-trained already)'
    )
    add('--text', nargs='+', default=[], help=text)
    words = 'more options for every train.py, for example "--n_gpu 1 --n_batch 32"'
    add('--train_options', default='', metavar='WORDS', help=words)
    add('--pretrain_options', default='', metavar='WORDS', help='the same for every pretrain.py')

    add = parser.add_argument_group('how').add_argument
    jobs = 'runs at a time (default: 1 with a GPU; else one on each core)'
    add('--jobs', type=Number(int, 1, 1000), help=jobs)
    add('--out', default='paper/', metavar='DIR', help='for everything written')
    add('--keep', action='store_true', help='keep the parameters of runs that are done')
    args = parser.parse_args(argv)
    everything = args.tables is None and args.figures is None
    args.tables = list(RUNS_OF_TABLE) if everything else args.tables or []
    args.figures = [2] if everything else args.figures or []
    check_paths(parser, data_dir=args.data_dir, model_dir=args.model_dir, text=args.text)
    return args


def run(args: Namespace) -> None:
    """Do what the options ask for. Raises InputError if a run failed, and Stopped."""
    check_writable(args.out)
    setup = find_setup(args)
    plan = make_plan(setup, args.tables, args.figures, args.seeds)
    check_options(plan, setup)
    if args.list:
        print_list(plan)
        return
    from gpt1.paper.report import write_report  # slow to import, as is the next
    from gpt1.paper.running import Runner

    reads_more = any(run.script != TRAIN for run in plan)
    make_samples((*setup.data, *(ZERO_SHOT_TITLES if reads_more else ())), args.data_dir)
    runner = Runner(plan, setup.path('runs'), args.jobs, args.keep)
    if not args.report:
        runner.work()
    print(write_report(plan, setup, args.tables, args.figures))
    for desc, message in runner.held.items():
        print(f'left to another process: {desc} ({message})')
    for desc, message in runner.failed.items():
        print(f'failed: {desc}: {message}', file=sys.stderr)
    if runner.failed:
        raise InputError(
            f'{len(runner.failed)} of {len(plan)} runs failed; their outputs are in '
            f'{setup.path("runs")}; the same command tries them again'
        )


def main(argv=None) -> int:
    """Run the command. Returns the exit status."""
    return exit_status('paper.py', run, parse_args(argv))


if __name__ == '__main__':
    sys.exit(main())
