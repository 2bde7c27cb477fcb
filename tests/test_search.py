"The search box without a browser: what is asked for, what is said, how large a page may become"
import numpy as np
import pandas as pd
import torch
from ipywidgets import Button

from vidbook.inference.search import ClipIndex, load_index, save_index
from vidbook.io.write import write_video
from vidbook.widgets.search import SearchBox, SearchState


def index_of(folder, n=5):
    "Vectors by lot, and clips that play"
    rng = np.random.default_rng(0)
    for i in range(n): write_video(folder/f'{i}.mp4', rng.integers(0, 255, (30, 48, 64, 3), np.uint8), 10)
    table = pd.DataFrame(dict(video=[f'{i}.mp4' for i in range(n)], caption=[f'<b>clip {i}</b>' for i in range(n)]))
    table.attrs['root'] = str(folder)
    return ClipIndex(torch.randn(n, 8, generator=torch.Generator().manual_seed(0)), table)


def buttons(box): return [o for o in box.likes.children if isinstance(o, Button)]
def html(box): return ''.join(o['data'].get('text/html', '') for o in box.out.outputs)


def test_press_and_press_again(tmp_path):
    "A press shows others, a press on one of these shows those like that; no clip is like itself"
    box = SearchBox(index_of(tmp_path), k=3)
    for place in (1, 3):
        chosen = box.state.found().index[place-1]
        buttons(box)[place-1]._handle_custom_msg({'event': 'click'}, [])
        assert box.state.row == chosen and chosen not in box.state.found().index
        assert len(buttons(box)) == html(box).count('<video') == 3
    assert f'like &lt;b&gt;clip {chosen}&lt;/b&gt;' in html(box) and '<b>clip' not in html(box)


def test_a_page_is_capped(tmp_path):
    box = SearchBox(index_of(tmp_path), k=5, max_bytes=100_000)
    assert len(html(box)) < 110_000 and 'of 5 clips shown' in html(box) and 'in all at most 0.1 MB a page' in html(box)


def test_an_index_that_was_moved(tmp_path):
    "Its clips are where they were, or where one says"
    index = index_of(tmp_path)
    save_index(index, tmp_path/'index')
    (tmp_path/'index').rename(tmp_path/'elsewhere')
    assert SearchState(tmp_path/'elsewhere').video(index.table.iloc[0]).path == str(tmp_path/'0.mp4')
    assert load_index(tmp_path/'elsewhere', '/data').table.attrs['root'] == '/data'
