"Published results as values: `presets.find(name)`, `presets.table()`, and each by its name, such as `presets.tsm_r50_k400_1x1x8`"
from .core import Preset, find_preset, preset_table
from .recognition import recognition_presets
from .transfer import transfer_presets

_all = recognition_presets+transfer_presets


def find(name): return find_preset(name, _all)
def table(): return preset_table(_all)
def __dir__(): return ['find', 'table', *(p.name for p in _all if p.name.isidentifier())]


def __getattr__(name):
    if name.startswith('__'): raise AttributeError(name)
    try: return next(p for p in _all if p.name == name)
    except StopIteration: pass
    try: find(name)
    except KeyError as e: raise AttributeError(e.args[0]) from None
