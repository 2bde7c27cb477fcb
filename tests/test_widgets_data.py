"Marks through kills, torn lines and several processes; the cleaner and the browser with what notebooks cannot hold"
import os, re, signal, subprocess, sys, time

import numpy as np
import pandas as pd
import pytest

from vidbook.data.marks import CleanerMarks, Journal
from vidbook.data.squares import make_squares
from vidbook.data.table import TableError, read_table, write_table
from vidbook.inference.evaluate import Predictions
from vidbook.utils import VidbookError
from vidbook.widgets.clean import VideoCleaner, cleaning_queue
from vidbook.widgets.dataset import DatasetBrowser, plot_facts


@pytest.fixture(scope='module')
def videos(tmp_path_factory):
    root = tmp_path_factory.mktemp('squares')
    return make_squares(root, n_train=2, n_valid=1, n_frames=6, side=32)


@pytest.fixture
def table(videos, tmp_path): return videos, tmp_path/'marks.jsonl'


def plain(n=200):
    "A table whose videos nobody opens"
    df = pd.DataFrame(dict(id=[f'c{i}' for i in range(n)], video=[f'{i}.mp4' for i in range(n)], label=['a', 'b']*(n//2), split=['train', 'valid']*(n//2)))
    df.attrs = dict(root='/nowhere', vocab=['a', 'b'])
    return df


writer = '''
import sys
from vidbook.data.marks import Journal
journal = Journal(sys.argv[1])
print('ready', flush=True); sys.stdin.readline()
for i in range(int(sys.argv[3])):
    journal.append(dict(id=f'c{i}', label=sys.argv[2]))
    print(i, flush=True)
'''


def start(file, name, n):
    process = subprocess.Popen([sys.executable, '-c', writer, str(file), name, str(n)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == 'ready\n'
    return process


def test_a_mark_that_was_told_of_survives_a_kill(tmp_path):
    "Killed at a moment that nobody chose: what `append` returned from is there"
    file, told = tmp_path/'marks.jsonl', 0
    process = start(file, 'a', 100_000)
    process.stdin.write('\n'); process.stdin.flush()
    while told < 50: told = int(process.stdout.readline())
    os.kill(process.pid, signal.SIGKILL)
    told = max([told, *(int(o) for o in process.stdout.read().split('\n')[:-1] if o)])
    process.wait(); process.stdin.close(); process.stdout.close()
    kept = [o['id'] for o in Journal(file).records() if o]
    assert kept[:told+1] == [f'c{i}' for i in range(told+1)] and told >= 50


def test_several_processes_write_to_one_journal(tmp_path):
    file = tmp_path/'marks.jsonl'
    processes = [start(file, name, 60) for name in 'ab']
    for p in processes: p.stdin.write('\n'); p.stdin.flush()
    assert [p.communicate()[0].split('\n')[-2] for p in processes] == ['59', '59']
    records = [o for o in Journal(file).records() if o]
    assert not Journal(file).broken()
    for name in 'ab': assert [o['id'] for o in records if o['label'] == name] == [f'c{i}' for i in range(60)]


def test_a_journal_cut_anywhere_keeps_all_whole_lines(tmp_path):
    whole = CleanerMarks(plain(), tmp_path/'whole.jsonl')
    whole.drop('c0'); whole.relabel('c1', 'b'); whole.undo(); whole.trim('c2', 0, 1.5)
    data = whole.journal.file.read_bytes()
    ends = [i for i in range(len(data)+1) if data[i:i+1] in (b'\n', b'')]
    for cut in range(1, len(data)+1):
        file = tmp_path/'cut.jsonl'
        file.write_bytes(data[:cut])
        journal = Journal(file)
        kept = [o for o in journal.records() if o]
        assert len(kept) == sum(0 < e <= cut for e in ends)
        assert bool(journal.broken()) == (cut not in ends and data[cut-1:cut] != b'\n')
        journal.append(dict(id='c9', keep=True))
        assert [o for o in journal.records() if o] == [*kept, dict(id='c9', keep=True)]


def test_a_torn_line_is_told_of_and_a_strange_one_refused(tmp_path):
    file = tmp_path/'marks.jsonl'
    CleanerMarks(plain(), file).drop('c0')
    with open(file, 'ab') as f: f.write(b'\n{"id": "c1", "dr')
    with pytest.warns(UserWarning, match='line 3: cut off'): assert CleanerMarks(plain(), file).marks == dict(c0=dict(drop=True))
    file.write_bytes(b'\n{"id": "c1", "blur": 3}')
    with pytest.raises(TableError, match='line 2.*update vidbook'): CleanerMarks(plain(), file)


def test_undo_goes_back_through_everything(tmp_path):
    "Random marks: after k undos stands what stood k marks ago, in this window and in another"
    rng, file = np.random.default_rng(0), tmp_path/'marks.jsonl'
    marks, other, past = CleanerMarks(plain(), file), CleanerMarks(plain(), file), [{}]
    acts = (lambda o, id: o.keep(id), lambda o, id: o.drop(id), lambda o, id: o.relabel(id, rng.choice(['a', 'b'])),
            lambda o, id: o.move(id, rng.choice(['train', 'test'])), lambda o, id: o.trim(id, 0, rng.integers(1, 9)))
    for _ in range(40):
        acts[rng.integers(5)]((marks, other)[rng.integers(2)], f'c{rng.integers(5)}')
        past.append(marks.marks)
    for stood in past[-2::-1]:
        assert (marks, other)[rng.integers(2)].undo()
        assert marks.marks == other.marks == stood
    assert marks.undo() is None and CleanerMarks(plain(), file).marks == {}


def test_two_windows_that_undo_at_once_agree(tmp_path):
    "A line that is taken back twice is taken back once"
    marks = CleanerMarks(plain(), tmp_path/'marks.jsonl')
    marks.drop('c0'); marks.drop('c1')
    for _ in range(2): marks.journal.append(dict(undo=2))
    assert marks.marks == dict(c0=dict(drop=True))


def test_where_nothing_can_be_written_one_sentence(tmp_path):
    (tmp_path/'file').write_text('')
    marks = CleanerMarks(plain(), tmp_path/'file'/'marks.jsonl')
    with pytest.raises(TableError, match='give another journal'): marks.drop('c0')
    remote = plain(); remote.attrs['root'] = 'https://127.0.0.1/x'
    with pytest.raises(TableError, match='give a file here'): CleanerMarks(remote)


def test_marks_of_a_file_lie_beside_it_and_the_file_stays(tmp_path):
    df = plain(20).assign(label=[['a'], ['a', 'b']]*10)
    write_table(df, tmp_path/'t.csv')
    before = (tmp_path/'t.csv').read_bytes()
    marks = CleanerMarks(tmp_path/'t.csv')
    marks.relabel('c0', ['b', 'a']); marks.drop('c1'); marks.trim('c2', 1, 2)
    assert marks.journal.file == tmp_path/'t.marks.jsonl'
    back = marks.write()
    assert back['label'].tolist()[:2] == [['b', 'a'], ['a']] and len(back) == 19 and back.set_index('id').loc['c2', 'end'] == 2
    assert (tmp_path/'t.csv').read_bytes() == before and (tmp_path/'t.clean.csv').is_file()
    with pytest.raises(TableError, match='there already'): marks.write(tmp_path/'t.csv')


def test_a_table_that_could_not_be_trained_on_is_not_written(tmp_path):
    marks = CleanerMarks(plain(4), tmp_path/'marks.jsonl')
    for id in ('c1', 'c3'): marks.drop(id)
    with pytest.raises(TableError, match='second class'): marks.write(tmp_path/'new.csv')
    assert not (tmp_path/'new.csv').exists()


def test_marks_of_clips_that_are_gone_are_told_of(tmp_path):
    file = tmp_path/'marks.jsonl'
    CleanerMarks(plain(), file).drop('c7')
    with pytest.warns(UserWarning, match='1 marks are about clips .* c7'): assert len(CleanerMarks(plain(4), file).clean()) == 4


def test_files_that_other_clips_need_stay(tmp_path):
    df = plain(4).assign(video='one.mp4', start=[0, 1, 2, 3], end=[1, 2, 3, 4])
    df.attrs['root'] = str(tmp_path)
    (tmp_path/'one.mp4').write_bytes(b'x')
    marks = CleanerMarks(df)
    for i in range(3): marks.drop(f'c{i}')
    assert marks.files_to_remove() == []
    marks.drop('c3')
    assert marks.files_to_remove() == [str(tmp_path/'one.mp4')] and (tmp_path/'one.mp4').exists()


def test_cleaner_in_two_windows(table):
    one, two = VideoCleaner(*table[:1], journal=table[1]), VideoCleaner(table[0], journal=table[1])
    def press(cleaner, name): cleaner.press(cleaner.buttons[name])
    press(one, 'drop')
    two.show(); assert 'marked: dropped' in two.text.value
    press(two, 'undo'); assert 'taken back' in two.told.value and one.marks[one.ids[0]] == {}
    press(one, 'back'); one.split.value = 'test'; two.show(); assert two.split.value == 'test'
    assert len(two.marks) == 1                                           # what is shown is not taken for a wish


def test_trimming_a_part_and_nothing(videos, tmp_path):
    "A part that ends between two pictures; a search that finds no clip"
    df = videos.assign(start=[.04]*len(videos), end=[.21]*len(videos))
    cleaner = VideoCleaner(df, journal=tmp_path/'marks.jsonl')
    cleaner.scrubber.slider.value = 1
    cleaner.press(cleaner.buttons['start here'])
    assert cleaner.marks[cleaner.id]['end'] == .21 and .04 < cleaner.marks[cleaner.id]['start'] < .21
    cleaner.filters['search'].value = 'nothing'
    for name in ('start here', 'keep', 'drop'):
        cleaner.press(cleaner.buttons[name])
        assert '<b>' in cleaner.told.value
    assert len(cleaner.marks) == 1


def test_cleaner_of_clips_with_several_labels(videos, tmp_path):
    df = videos.assign(label=[[o] for o in videos['label']])
    cleaner = VideoCleaner(df, journal=tmp_path/'marks.jsonl')
    assert cleaner.label.value == ('left',)
    cleaner.label.value = ('left', 'up')
    assert cleaner.marks[cleaner.id] == dict(label=['left', 'up'])
    assert cleaner.marks.clean()['label'].iloc[0] == ['left', 'up']


def test_cleaner_of_a_learner(videos, tmp_path):
    from vidbook.data.loaders import VideoDataLoaders
    from vidbook.learner.classify import video_learner
    from vidbook.models.tsn import tsn_slim
    dls = VideoDataLoaders.from_table(videos, size=32, bs=4, num_workers=0, index=None)
    learn = video_learner(dls, tsn_slim)
    with learn.no_bar(), learn.no_logging(): cleaner = VideoCleaner(learn, journal=tmp_path/'marks.jsonl')
    cleaner.filters['order'].value = 'highest loss'
    losses = cleaner.rows['loss'].dropna().tolist()
    assert len(losses) == 4 and losses == sorted(losses, reverse=True) and set(cleaner.rows['split'].iloc[:4]) == {'valid'}
    assert len(cleaner.ids) == len(videos)


def test_a_hundred_thousand_clips_are_queued_quickly(tmp_path):
    df, rng = plain(100_000), np.random.default_rng(0)
    marks = CleanerMarks(df, tmp_path/'marks.jsonl')
    (tmp_path/'marks.jsonl').write_text(''.join(f'\n{{"id": "c{i}", "drop": true}}' for i in range(0, 20_000, 2)))
    scores = rng.dirichlet([1, 1], len(df))
    before = time.process_time()
    rows = cleaning_queue(marks, Predictions.of(df, scores, vocab=['a', 'b']), label='b', show='not yet marked', order='likely wrong')
    assert len(rows) == 50_000 and time.process_time() - before < 20 and rows['margin'].is_monotonic_increasing


def test_browser_without_facts(videos):
    bare = DatasetBrowser(videos)
    assert 'seconds' not in bare.controls and plot_facts(bare.facts) is None and len(bare.out.outputs) == 1
    bare.controls['label'].value = 'up'; bare.controls['show'].value = 'clips'
    assert '3 of 12 clips' in str(bare.out.outputs)
    bare.controls['show'].value = 'leaks'; assert '0 pairs' in str(bare.out.outputs)
    bare.controls['search'].value = 'nothing'
    with pytest.raises(VidbookError, match='change the filters'): bare.picture()
    bare.controls['show'].value = 'overview'; assert 'no clip is like that' in str(bare.out.outputs)


def test_browser_page_is_capped(videos):
    small = DatasetBrowser(videos, k=4, max_bytes=3000)
    small.controls['show'].value = 'clips'
    text = str(small.out.outputs)
    assert 'the page is capped' in text and len(text) < 6000


def test_leaking_pairs_share_the_bytes_of_a_page(videos):
    "What the page says of its size holds for all pairs together"
    def page(max_bytes):
        browser = DatasetBrowser(videos.assign(source=videos['label']), k=4, max_bytes=max_bytes)
        browser.controls['show'].value = 'leaks'
        return ''.join(o['data'].get('text/html', '') for o in browser.out.outputs)
    clips = [len(o) for o in re.findall('<figure.*?</figure>', page(4_000_000))]
    assert len(clips) == 4
    most = sum(clips)*3//4
    tight = page(most)
    assert 0 < sum(len(o) for o in re.findall('<figure.*?</figure>', tight)) <= most and f'at most {most/1e6:.2g} MB a page' in tight
