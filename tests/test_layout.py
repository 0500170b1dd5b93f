"""Imports go down only, from the commands to utils.py; at the root are the names that all know."""

import ast
import glob
import graphlib
import os

from conftest import ROOT

COMMANDS = 'train pretrain predict generate analysis download convert paper'.split()
CORE = 'model_pytorch gpt1.lstm loss opt datasets text_utils'.split()
FLOORS = [  # from the ground up; a folder stands for all that is in it
    ['utils', 'gpt1', 'gpt1.files', 'gpt1.startup'],
    ['gpt1.options'],
    ['gpt1.settings'],
    ['gpt1.parsing', 'gpt1.model_options'],
    ['gpt1.ops', 'gpt1.tasks', 'gpt1.text'],
    CORE,
    ['gpt1.weights'],
    ['gpt1.run'],
    ['gpt1.report'],
    ['gpt1.paper'],
    COMMANDS,
]
FILES = {
    path.removesuffix('.py').removesuffix('/__init__').replace(os.sep, '.'): path
    for pattern in ('*.py', 'gpt1/**/*.py')
    for path in glob.glob(pattern, root_dir=ROOT, recursive=True)
}


def floor(module):
    names = [module, '.'.join(module.split('.')[:2])]
    return next(n for n, floor in enumerate(FLOORS) if set(names) & set(floor))


def imports(module):
    """All modules of the program that a module imports, also within functions."""
    with open(os.path.join(ROOT, FILES[module]), encoding='utf-8') as f:
        tree = ast.parse(f.read())
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module, *(f'{node.module}.{alias.name}' for alias in node.names)}
    return names & set(FILES)


def test_imports_go_down_only():
    graph = {module: imports(module) for module in FILES}
    up = [(m, other) for m in graph for other in graph[m] if floor(other) > floor(m)]
    assert up == []
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError


def test_the_root_has_eight_commands_and_six_names_of_the_original():
    at_the_root = {module for module, path in FILES.items() if os.sep not in path}
    assert at_the_root == {*COMMANDS, *CORE, 'utils'} - {'gpt1.lstm'}
