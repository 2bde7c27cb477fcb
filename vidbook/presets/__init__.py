"Published results as values: `presets.find(name)`, `presets.table()`, and each by its name, such as `presets.tsm_r50_k400_1x1x8`"
from importlib import import_module

from .core import Preset, find_preset, preset_table

_parts = ('recognition bodies relations swin mvit resnet3d transfer uniformer vit two_stream clip_networks '
          'skeleton retrieval localization detection').split()
_all = [o for part in _parts for o in getattr(import_module(f'.{part}', __name__), f'{part}_presets')]


def find(name): return find_preset(name, _all)
def table(): return preset_table(_all)
def __dir__(): return ['find', 'table', *(p.name for p in _all if p.name.isidentifier())]

def __getattr__(name):
    if name.startswith('__'): raise AttributeError(name)
    try: return next(p for p in _all if p.name == name)
    except StopIteration: pass
    try: find(name)
    except KeyError as e: raise AttributeError(e.args[0]) from None
