"Looking through results: what grows with the samples and what does not, files that are gone, rows without a class, a learner as the source"
import tracemalloc
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from vidbook.data.loaders import VideoDataLoaders
from vidbook.data.squares import make_squares
from vidbook.inference.evaluate import Predictions
from vidbook.interpret.classify import confusion, per_class, play_clips
from vidbook.learner.classify import video_learner
from vidbook.models.tsn import tsn_slim
from vidbook.utils import VidbookError
from vidbook.widgets.classes import PerClassResults
from vidbook.widgets.results import ResultsExplorer, ResultsState


def drawn(n, classes=6, root='/nowhere'):
    "Predictions by lot"
    rng, vocab = np.random.default_rng(0), [f'class {k}' for k in range(classes)]
    table = pd.DataFrame(dict(id=[f'v{i}' for i in range(n)], video=[f'v{i}.mp4' for i in range(n)], label=rng.choice(vocab, n)))
    table.attrs['root'] = str(root)
    return Predictions.of(table, rng.dirichlet(np.ones(classes), n).astype(np.float32), vocab=vocab)


@pytest.fixture(scope='module')
def squares(tmp_path_factory):
    "Real files and what was said of them by lot"
    table = make_squares(tmp_path_factory.mktemp('squares'), n_train=2, n_valid=2, side=32)
    return Predictions.of(table, np.random.default_rng(0).dirichlet(np.ones(4), len(table)), vocab=table.attrs['vocab'])


def front_end_click(button): button._handle_custom_msg({'event': 'click'}, [])


def page_html(explorer): return ''.join(o['data']['text/html'] for o in explorer.out.outputs)


def count(widget): return 1+sum(count(o) for o in getattr(widget, 'children', ()))


def test_widgets_do_not_grow_with_samples():
    few, many = (ResultsExplorer(drawn(n)) for n in (100, 20_000))
    assert count(few.widget) == count(many.widget) > 50
    assert len(page_html(many)) < len(page_html(few))+500


def test_memory_is_that_of_names_and_numbers():
    preds = drawn(100_000)
    tracemalloc.start()
    try:
        explorer = ResultsExplorer(preds)
        explorer.choose(label='class 1', show='both', search='v1')
        explorer.choose(label='class 2', search='')
        now, peak = tracemalloc.get_traced_memory()
    finally: tracemalloc.stop()
    assert now < 20e6 and peak < 80e6
    assert explorer.state.preds.scores is preds.scores


def test_pages_hold_every_row_once():
    state = ResultsState(drawn(1003), k=10)
    rows = state.choose(show='both', order='surest')
    seen = pd.concat([state.page(i) for i in range(state.pages)])
    assert seen['id'].tolist() == rows['id'].tolist() and sorted(seen['id']) == sorted(state.preds.ids)


def test_clicks_of_a_front_end(squares):
    explorer = ResultsExplorer(squares, k=3)
    front_end_click(explorer.classes.grid.buttons[0][1])
    label, pred = squares.vocab[:2]
    assert len(explorer.rows()) == confusion(squares).loc[label, pred] and all(explorer.rows()['pred'] == pred)
    front_end_click(explorer.classes.bars.buttons[1])
    name = per_class(squares)['recall'].sort_values(kind='stable').index[1]
    assert explorer.controls['label'].value == name and explorer.controls['pred'].value == '(all)'
    page = page_html(explorer)
    assert page.count('<video') == 3 and all(f'{id}: ' in page for id in explorer.rows()['id'][:3])


def test_a_choice_draws_once(squares, monkeypatch):
    explorer, drawn_pages = ResultsExplorer(squares, k=1), []
    monkeypatch.setattr(ResultsExplorer, 'page', lambda self, **values: drawn_pages.append(values) or [])
    explorer.controls['page'].value = 2
    explorer.choose(label='left', pred='up', show='both', order='surest')
    assert len(drawn_pages) == 2 and drawn_pages[-1]['page'] == 1
    explorer.controls['show'].value = 'hits'
    assert len(drawn_pages) == 3


def test_pages_are_capped(squares):
    page = play_clips(squares, squares.table, max_bytes=30_000).data
    assert len(page) < 31_000 and 'the page is capped at 0.03 MB' in page
    assert f'{page.count("<video")} of {len(squares)} clips shown' in page


def test_files_that_are_gone_or_broken_are_listed(tmp_path):
    preds = drawn(3, root=tmp_path)
    (tmp_path/'v1.mp4').write_text('no video')
    (tmp_path/'v2.mp4').write_bytes(b'')
    page = page_html(ResultsExplorer(preds))
    assert '<video' not in page
    assert all(f'{id} cannot be shown: ' in page for id in ResultsState(preds).rows['id'])


def test_names_cannot_bring_html_along(squares):
    evil = '<script>alert(1)</script>'
    table = squares.table.assign(id=[evil, *squares.table['id'][1:]], video=['gone'+evil, *squares.table['video'][1:]])
    renamed = [evil if o == 'left' else o for o in squares.vocab]
    table = table.assign(label=table['label'].replace('left', evil), pred=table['pred'].replace('left', evil))
    explorer = ResultsExplorer(replace(squares, table=table, vocab=tuple(renamed)))
    explorer.choose(label=evil, show='both')
    heads = ''.join(o.value for o in explorer.classes.grid.names+explorer.classes.grid.heads)
    assert '<script>' not in page_html(explorer)+heads+explorer.classes.text.value


def test_rows_without_a_known_class():
    preds = drawn(50)
    labels = [None, 'unheard of', *preds.table['label'][2:]]
    preds = replace(preds, table=preds.table.assign(label=labels, correct=preds.table['pred'] == pd.Series(labels)))
    assert per_class(preds)['support'].sum() == 48
    assert len(ResultsState(preds).choose(show='both')) == 50


def test_many_classes_show_some(squares):
    classes = PerClassResults(drawn(4000, 60), n=8)
    assert len(classes.bars.buttons) == len(classes.grid.buttons) == 8
    front_end_click(classes.bars.buttons[3])
    assert classes.bars.shown().index[3] in classes.grid.shown().index


def test_csv_of_a_selection(squares, tmp_path):
    explorer = ResultsExplorer(squares)
    explorer.choose(label='up', show='both', prob=(.3, 1))
    explorer.csv.value = str(tmp_path/'some.csv'); explorer.write()
    kept = pd.read_csv(tmp_path/'some.csv')
    assert kept['id'].tolist() == explorer.rows()['id'].tolist() and {'pred', 'prob', 'loss', 'correct', 'seconds'} <= set(kept)
    explorer.csv.value = str(tmp_path/'none'/'some.csv'); explorer.write()
    assert 'is no folder' in explorer.note.value


def test_of_a_learner(tmp_path):
    dls = VideoDataLoaders.from_table(make_squares(tmp_path, n_train=2, n_valid=2), size=32, bs=4, num_workers=0, index=True)
    learn = video_learner(dls, tsn_slim)
    with learn.no_bar(): explorer = ResultsExplorer(learn)
    assert len(explorer.preds) == 8
    assert explorer.state.preds.table['seconds'].round(2).tolist() == [.96]*8             # known by the index: 24 frames, 25 a second
    explorer.choose(show='both', seconds=(0, .5))
    assert not len(explorer.rows())


def test_single_views_are_refused():
    preds = drawn(4)
    views = Predictions.of(preds.table[['id', 'video', 'label']], np.repeat(preds.scores[:, None], 3, 1), vocab=preds.vocab, average=None)
    with pytest.raises(VidbookError, match="averaged"): ResultsExplorer(views)
