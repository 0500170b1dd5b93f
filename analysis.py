"""From a run's predictions and log to the figures a person reads."""
import csv
import json

from datasets import find_csv, read_cloze_test
from utils import InputError

EVALUATION = ('n_epochs', 'n_updates', 'tr_cost', 'va_cost', 'tr_acc', 'va_acc')  # the numbers of a line of the log


def read_log(path):
    """The evaluations of a run's log, one dict each; the first line, its arguments, is left out. Raises InputError."""
    try:
        with open(path, encoding='utf-8') as f:
            evaluations = [json.loads(line) for line in f][1:]
    except OSError as error:
        raise InputError(f'cannot read {path}: {error.strerror}') from error
    except (ValueError, RecursionError) as error:
        raise InputError(f'{path} is not a log of JSON lines ({str(error)[:80]})') from error
    for number, line in enumerate(evaluations, 2):
        for name in EVALUATION:
            value = line.get(name) if isinstance(line, dict) else None
            if type(value) not in (int, float) or not -1e30 < value < 1e30:
                raise InputError(f'{path}, line {number}: expected an evaluation with a number "{name}"')
    if not evaluations:
        raise InputError(f'{path} has no evaluations: its run ended before the first')
    return evaluations


def read_predictions(path):
    """The predictions, 0 or 1, of a submission file, in the order of its lines. Raises InputError."""
    try:
        with open(path, encoding='utf-8', newline='') as f:
            header, *rows = csv.reader(f, delimiter='\t')
    except OSError as error:
        raise InputError(f'cannot read {path}: {error.strerror}') from error
    except (ValueError, csv.Error) as error:
        raise InputError(f'{path} is not a submission ({str(error)[:80]})') from error
    if header != ['index', 'prediction']:
        raise InputError(f'{path}, line 1: expected the header "index", tab, "prediction"')
    for i, row in enumerate(rows):
        if row not in ([str(i), '0'], [str(i), '1']):
            raise InputError(f'{path}, line {i + 2}: expected {i}, tab, 0 or 1')
    return [int(prediction) for _, prediction in rows]


def rocstories(data_dir, submission_path, log_path):
    """Print the best validation accuracy of the log and the test accuracy of the submission, in % (`analysis.rocstories` of the original)."""
    labels = read_cloze_test(find_csv(data_dir, 'test'), need_labels=False).label
    predictions = read_predictions(submission_path)
    if len(predictions) != len(labels):
        raise InputError(f'{submission_path} has {len(predictions)} predictions, but the test file has {len(labels)} stories')
    valid_accuracy = max(line['va_acc'] for line in read_log(log_path))
    print(f'ROCStories Valid Accuracy: {valid_accuracy:.2f}')
    if -1 in labels:
        print('ROCStories Test Accuracy:  not known: the test file has no labels')
    else:
        test_accuracy = 100 * sum(p == label for p, label in zip(predictions, labels)) / len(labels)
        print(f'ROCStories Test Accuracy:  {test_accuracy:.2f}')
