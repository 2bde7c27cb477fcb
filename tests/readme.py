"Make README.md from nbs/index.ipynb (its markdown, its shown code and its text outputs): `python tests/readme.py`"
from project import cells, marks, root, source

note = '<!-- Made from nbs/index.ipynb by tests/readme.py: edit the notebook -->\n\n'


def part(cell):
    "One cell as markdown; hidden cells give nothing"
    if cell['cell_type'] == 'markdown': return source(cell).replace('](images/', '](nbs/images/')
    if any(m.startswith(('hide', 'default_exp')) for m in marks(cell)): return ''
    return '```python\n'+'\n'.join(line for line in source(cell).splitlines() if not line.startswith('#|'))+'\n```'


def readme(): return note+'\n\n'.join(p for p in map(part, cells(root/'nbs'/'index.ipynb')) if p)+'\n'


if __name__ == '__main__': (root/'README.md').write_text(readme(), encoding='utf-8'); print('README.md written')
