"The package is what the notebooks export, the README what the index says, and notebooks are clean"
import filecmp, os, shutil, subprocess, sys
from pathlib import Path

import pytest
from project import lib, notebooks, root


@pytest.fixture(scope='module')
def fresh(tmp_path_factory):
    "A copy of the project that was exported and cleaned anew"
    dest = tmp_path_factory.mktemp('fresh')
    for name in ('nbs', 'vidbook'): shutil.copytree(root/name, dest/name, ignore=shutil.ignore_patterns('__pycache__', '.ipynb_checkpoints'))
    for name in ('settings.ini', 'README.md', 'setup.py'): shutil.copy(root/name, dest/name)
    for command in ('nbdev_export', 'nbdev_clean'):
        run = subprocess.run([str(Path(sys.executable).parent/command)], cwd=dest, capture_output=True, text=True, env={**os.environ, 'PYTHONPATH': str(dest)})
        assert run.returncode == 0, f'{command}: {run.stdout[-2000:]}{run.stderr[-2000:]}'
    return dest


def differing(a, b, pattern):
    "Files matching `pattern` that are not the same under both folders"
    names = {p.relative_to(d).as_posix() for d in (a, b) for p in d.rglob(pattern) if '__pycache__' not in p.parts and '.ipynb_checkpoints' not in p.parts}
    return sorted(n for n in names if not ((a/n).is_file() and (b/n).is_file() and filecmp.cmp(a/n, b/n, shallow=False)))


def test_package_is_exported(fresh): assert differing(lib, fresh/'vidbook', '*.py') == [], 'run nbdev_export and commit'
def test_notebooks_are_clean(fresh): assert differing(root/'nbs', fresh/'nbs', '*.ipynb') == [], 'run nbdev_clean and commit'


def test_readme_is_rendered():
    from readme import readme
    assert (root/'README.md').read_text(encoding='utf-8') == readme(), 'run python tests/readme.py and commit'


def test_there_are_notebooks(): assert len(notebooks(exporting=True)) > 20
