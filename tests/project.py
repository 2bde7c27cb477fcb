"What the tests about the project's own form share: where things are and how to read them"
import ast, json
from configparser import ConfigParser
from functools import cache
from pathlib import Path

root = Path(__file__).resolve().parent.parent
lib = root/'vidbook'
by_hand = {'all.py', '__init__.py', '_modidx.py'}   # every other module is exported from a notebook


def notebooks(exporting=False):
    "Paths of all notebooks; with `exporting` only those that make a module"
    found = sorted(p for p in (root/'nbs').rglob('*.ipynb') if not p.name.startswith('_') and '.ipynb_checkpoints' not in p.parts)
    return [p for p in found if default_exp(p)] if exporting else found


@cache
def cells(path): return json.loads(path.read_text(encoding='utf-8'))['cells']


def source(cell): return ''.join(cell['source'])


def marks(cell):
    "The words after `#|`, one entry a directive"
    return [line.strip()[2:].strip() for line in source(cell).splitlines() if line.strip().startswith('#|')]


def default_exp(path):
    "The module that the notebook at `path` exports to, or None"
    return next((m.split()[1] for c in cells(path) if c['cell_type'] == 'code' for m in marks(c) if m.startswith('default_exp')), None)


def exported(path):
    "The exported cells' lines, without directives and blank lines at the ends"
    out = []
    for c in cells(path):
        if c['cell_type'] == 'code' and any(m.split()[0] in ('export', 'exports', 'exporti') for m in marks(c) if m):
            out.append([line for line in source(c).strip().splitlines() if not line.strip().startswith('#|')])
    return out


def modules():
    "Paths of the package's modules that notebooks make"
    return sorted(p for p in lib.rglob('*.py') if p.name not in by_hand)


def module_name(path): return '.'.join(path.relative_to(root).with_suffix('').parts)


@cache
def tree(path): return ast.parse(path.read_text(encoding='utf-8'))


def settings():
    ini = ConfigParser(delimiters=['=']); ini.read(root/'settings.ini', encoding='utf-8')
    return ini['DEFAULT']
