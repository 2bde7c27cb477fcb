"The form of the book: names, budgets, nothing orphaned, nothing forgotten in `vidbook.all`, no lambda kept"
import ast, importlib, re
from collections import Counter

from project import cells, default_exp, exported, lib, marks, module_name, modules, notebooks, root, source, tree

private = {'cli'}   # commands for the shell, not for notebooks


def test_one_default_exp_equal_to_the_path():
    wrong = {p.relative_to(root).as_posix(): default_exp(p) for p in notebooks(exporting=True)
             if default_exp(p) != '.'.join(p.relative_to(root/'nbs').with_suffix('').parts)}
    assert not wrong
    assert max(Counter(map(default_exp, notebooks(exporting=True))).values()) == 1


def test_no_orphan_module():
    made = {default_exp(p) for p in notebooks(exporting=True)}
    assert {module_name(p).removeprefix('vidbook.') for p in modules()} == made


def test_every_notebook_opens_with_title_and_subtitle():
    for p in notebooks():
        first = source(cells(p)[0])
        assert first.startswith('# ') and '\n> ' in first, p


def test_sidebar_lists_every_notebook_once():
    listed = [line.split('- ')[1].strip() for line in (root/'nbs'/'sidebar.yml').read_text(encoding='utf-8').splitlines() if line.endswith('.ipynb')]
    assert sorted(listed) == sorted(p.relative_to(root/'nbs').as_posix() for p in notebooks())


def test_budgets():
    too_long = {}
    for p in notebooks(exporting=True):
        parts = exported(p)
        if sum(map(len, parts)) > 330: too_long[p.name] = f'{sum(map(len, parts))} exported lines'
        for lines in parts:
            limit = 60 if any(l.startswith(('class ', '@dataclass')) for l in lines) else 25
            if len(lines) > limit: too_long[f'{p.name}: {lines[0]}'] = f'{len(lines)} lines in a cell'
    assert not too_long


def test_size():
    assert not {p.name: p.stat().st_size for p in notebooks() if p.stat().st_size > 150_000}


def test_lines_fit():
    "120 columns are the aim, 150 the limit; nbdev writes `__all__` and the cells' origins itself"
    lines = [(p, i, line) for p in modules() for i, line in enumerate(p.read_text(encoding='utf-8').splitlines(), 1)]
    assert not [f'{p.name}:{i}' for p, i, line in lines if len(line) > 150 and not line.startswith(('__all__', '# %%'))]


def test_tests_stand_beside_the_code():
    bare = [p.name for p in notebooks(exporting=True)
            if not any(c['cell_type'] == 'code' and ('test_' in source(c) or 'assert ' in source(c)) and 'export' not in ' '.join(marks(c)) for c in cells(p))]
    assert not bare


def test_all_is_complete():
    import vidbook.all as everything
    missing = []
    for p in modules():
        name = module_name(p)
        if name.split('.')[1] in private: continue
        module = importlib.import_module(name)
        missing += [f'{name}.{s}' for s in getattr(module, '__all__', []) if not s.startswith('_') and getattr(everything, s, None) is not getattr(module, s)]
    assert not missing


def replaced(path):
    "Methods of another module's class that are patched anew"
    own, module = {o.name for o in ast.walk(tree(path)) if isinstance(o, ast.ClassDef)}, importlib.import_module(module_name(path))
    for node in tree(path).body:
        if not (isinstance(node, ast.FunctionDef) and any('patch' in ast.unparse(o) for o in node.decorator_list)): continue
        for name in ast.unparse(node.args.args[0].annotation).split(' | '):
            if name not in own and any(hasattr(o, node.name) for o in getattr(module, name).__bases__): yield f'{path.name}: {name}.{node.name}'


def test_a_patch_only_adds():
    "Notebooks are run one after the other in one process: what one of them replaces, for its own classes, the next ones get"
    assert [where for p in modules() for where in replaced(p)] == ['checkpoint.py: VideoLearner.export']      # it writes a file, of no class of its own


def kept_lambdas(path):
    "Lambdas that outlive their statement: assigned, returned, a default, or handed to a class"
    for node in ast.walk(tree(path)):
        inside = []
        if isinstance(node, (ast.Assign, ast.AnnAssign, ast.Return)): inside = [node.value]
        if isinstance(node, (ast.FunctionDef, ast.Lambda)): inside = [*node.args.defaults, *node.args.kw_defaults]
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, 'id', '')
            if called[:1].isupper() or called == 'partial': inside = [*node.args, *(k.value for k in node.keywords)]
        yield from (f'{path.name}:{v.lineno}' for v in inside if isinstance(v, ast.Lambda))


def test_no_lambda_is_kept(): assert not [where for p in modules() for where in kept_lambdas(p)]


def test_no_module_made_by_hand():
    "Beside `all.py` and the packages' own files everything comes from a notebook"
    for p in lib.rglob('*.py'):
        if p in modules() or p.name in ('all.py', '_modidx.py'): continue
        assert p.name == '__init__.py' and len(p.read_text(encoding='utf-8').splitlines()) <= 20, p


def test_outputs_name_no_folder_of_a_machine():
    "`python tests/render.py` replaces them"
    found = {o.name: m[0] for o in notebooks() if (m := re.search(r'/(?:root|home|Users|work)/[\w.-]+', o.read_text(encoding='utf-8')))}
    assert found == {}
