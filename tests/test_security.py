"Nothing is trusted: no code from data, no unchecked archives, no shell"
import ast

import pytest
from project import lib, root

sources = sorted([*lib.rglob('*.py'), *(root/'data_recipes').glob('*.py'), *(root/'tests').glob('*.py'), root/'setup.py'])
forbidden = {'pickle.load', 'pickle.loads', 'joblib.load', 'yaml.load', 'shelve.open', 'marshal.loads', 'os.system', 'eval', 'exec', 'torch.hub.load'}


def dotted(node):
    "`a.b.c` of a call's function, as far as it is names"
    if isinstance(node, ast.Attribute): return f'{dotted(node.value)}.{node.attr}'
    return getattr(node, 'id', '')


def offences(path):
    "Calls that would run or trust what a file says"
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if not isinstance(node, ast.Call): continue
        name, options = dotted(node.func), {k.arg: getattr(k.value, 'value', None) for k in node.keywords}
        bad = (name in forbidden and not (name.startswith('pickle') and 'tests' in path.parts) or name.endswith(('.extractall', '.unpack_archive'))
               or options.get('weights_only', True) is False or options.get('shell', False) is True or options.get('allow_pickle', False) is True
               or options.get('verify', True) is False)
        if bad: yield f'{path.relative_to(root)}:{node.lineno} {name}'


def test_no_dangerous_call(): assert not [o for p in sources for o in offences(p)]


@pytest.mark.parametrize('code', ['import pickle; pickle.load(f)', 'torch.load(f, weights_only=False)', 'z.extractall(d)', 'subprocess.run(c, shell=True)', 'eval(x)',
                                  'np.load(f, allow_pickle=True)'])
def test_the_search_finds_them(tmp_path, code, monkeypatch):
    p = tmp_path/'bad.py'; p.write_text(code)
    monkeypatch.setattr('test_security.root', tmp_path)
    assert list(offences(p))


def test_nothing_names_a_network_address_at_import():
    "Downloads happen when a person asks for them: no module opens a connection at its top level"
    for p in lib.rglob('*.py'):
        calls = [dotted(n.func) for top in ast.parse(p.read_text(encoding='utf-8')).body if isinstance(top, (ast.Expr, ast.Assign)) for n in ast.walk(top) if isinstance(n, ast.Call)]
        assert not [c for c in calls if c.startswith(('urllib', 'requests', 'urlopen', 'socket'))], p
