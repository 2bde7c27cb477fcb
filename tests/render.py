"""Run notebooks and keep their outputs: `python tests/render.py [--slow] nbs/io/video.ipynb ...`

Skips what `nbdev_test` skips (`#| eval: false`, and the flags named in settings.ini's tst_flags), keeps those cells' old outputs; with `--slow` cells
that are marked `#| slow` run, too."""
import os, sys, sysconfig
from configparser import ConfigParser
from pathlib import Path

import nbformat
from nbclient import NotebookClient

root = Path(__file__).resolve().parent.parent
_ini = ConfigParser(delimiters=['=']); _ini.read(root/'settings.ini', encoding='utf-8')
os.environ.setdefault("PYTHONWARNINGS", "ignore::FutureWarning")   # torch.jit says something at every import of fastai
flags = {'eval: false', *_ini['DEFAULT']['tst_flags'].split()}


def skipped(cell):
    "Does the cell carry a directive that keeps `nbdev_test` from running it?"
    marks = [line.strip()[2:].strip() for line in cell.source.splitlines() if line.strip().startswith('#|')]
    return any(mark in flags for mark in marks)


class Renderer(NotebookClient):
    "A notebook client that leaves skipped cells as they are"
    async def async_execute_cell(self, cell, *args, **kwargs):
        if cell.cell_type == 'code' and skipped(cell): return cell
        return await super().async_execute_cell(cell, *args, **kwargs)


def portable(text):
    "Outputs that are the same on every machine, as far as they name folders"
    for folder,name in ((sysconfig.get_path('purelib'), 'site-packages'), (str(root), 'vidbook'), (str(Path.home()), '~')): text = text.replace(folder, name)
    return text


def render(path, timeout=600):
    "Execute the notebook at `path` in its own folder and write it back with its outputs"
    nb = nbformat.read(path, as_version=4)
    Renderer(nb, timeout=timeout, kernel_name='python3', resources=dict(metadata=dict(path=str(Path(path).parent)))).execute()
    if 'vnd.jupyter.widget-view' not in nbformat.writes(nb): nb.metadata.pop('widgets', None)   # the state of widgets that the page does not show
    Path(path).write_text(portable(nbformat.writes(nb)) + '\n', encoding='utf-8')


if __name__ == '__main__':
    paths = [o for o in sys.argv[1:] if o != '--slow']
    if len(paths) < len(sys.argv)-1: flags.discard('slow')
    for p in paths: render(p); print('rendered', p)
