"""From a run's predictions and log to the figures a person reads."""
import csv
import json

from datasets import find_csv, read_cloze_test


def read_log(path):
    """The evaluations of a run's log, one dict each; the first line, its arguments, is left out."""
    with open(path, encoding='utf-8') as f:
        return [json.loads(line) for line in f][1:]


def read_predictions(path):
    """The predictions, 0 or 1, of a submission file, in the order of its lines."""
    with open(path, encoding='utf-8', newline='') as f:
        return [int(row['prediction']) for row in csv.DictReader(f, delimiter='\t')]


def rocstories(data_dir, submission_path, log_path):
    """Print the best validation accuracy of the log and the test accuracy of the submission, in % (`analysis.rocstories` of the original)."""
    labels = read_cloze_test(find_csv(data_dir, 'test'), need_labels=False).label
    predictions = read_predictions(submission_path)
    valid_accuracy = max(line['va_acc'] for line in read_log(log_path))
    print(f'ROCStories Valid Accuracy: {valid_accuracy:.2f}')
    if -1 in labels:
        print('ROCStories Test Accuracy:  not known: the test file has no labels')
    else:
        test_accuracy = 100 * sum(p == label for p, label in zip(predictions, labels, strict=True)) / len(labels)
        print(f'ROCStories Test Accuracy:  {test_accuracy:.2f}')
