"Imports go downwards through the layers of the design; no optional library is imported by `vidbook.all`"
import ast, json, subprocess, sys

from project import module_name, modules, tree

ranks = dict(utils=0, core=1, io=1, layers=1, losses=1, metrics=2, data=2, models=2, pretrained=3, distributed=3, callbacks=4, learner=5,
             presets=6, inference=6, interpret=6, widgets=7, export=7, all=8, cli=9)
strangers = [{'data', 'models'}]   # never import each other
optional = 'timm onnx onnxscript onnxruntime open_clip torchcodec torchmetrics librosa transformers rtmlib webdataset nbdev pytest jupytext decord'.split()
light = 'utils io.video io.sample io.write data.table'.split()   # what a decoding worker imports


def part(module): return module.split('.')[1]


def imported(path):
    "The vidbook modules that the module at `path` imports, anywhere in it"
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import): names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0: names = [node.module] if node.module != 'vidbook' else [f'vidbook.{a.name}' for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = module_name(path).split('.')[:-node.level]
            names = ['.'.join(base+[node.module])] if node.module else ['.'.join(base+[a.name]) for a in node.names]
        else: continue
        yield from (n for n in names if n.startswith('vidbook.'))


def test_every_module_has_a_layer(): assert {part(module_name(p)) for p in modules()} <= set(ranks)


def test_imports_go_downwards():
    upward = [f'{module_name(p)} -> {n}' for p in modules() for n in imported(p) if ranks[part(n)] > ranks[part(module_name(p))]]
    assert not upward


def test_strangers_stay_apart():
    pairs = [f'{module_name(p)} -> {n}' for p in modules() for n in imported(p) if {part(n), part(module_name(p))} in strangers]
    assert not pairs


def test_models_need_only_torch_einops_and_layers():
    allowed = {'torch', 'einops', 'math', 'functools', 'itertools', 're', 'collections', 'typing', 'dataclasses', 'copy', '__future__', 'pickle', 'io', 'torchvision'}
    for p in modules():
        if part(module_name(p)) not in ('layers', 'models'): continue
        outside = {(n.module or '') if isinstance(n, ast.ImportFrom) and not n.level else a.name for n in ast.walk(tree(p)) if isinstance(n, (ast.Import, ast.ImportFrom))
                   and not (isinstance(n, ast.ImportFrom) and n.level) for a in n.names}
        assert {o.split('.')[0] for o in outside if not o.startswith('vidbook')} <= allowed, p


def loaded(statement):
    "Top-level names of the modules in memory after `statement` in a fresh interpreter"
    code = f'import sys, json; {statement}; print(json.dumps(sorted({{m.split(".")[0] for m in sys.modules}})))'
    return set(json.loads(subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.splitlines()[-1]))


def test_no_optional_library_is_imported(): assert not loaded('import vidbook.all') & set(optional)
def test_workers_import_light(): assert not loaded('; '.join(f'import vidbook.{m}' for m in light)) & {'torch', 'fastai', 'matplotlib', 'IPython'}
