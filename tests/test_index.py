"The index against hangs, crashes, kills, strange names, other processes and other writers"
import multiprocessing
import os
import pickle
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pytest

from vidbook.io.corpus import make_corpus, mutations
from vidbook.io.index import Index, IndexEntry, build_index, find_index, video_paths
from vidbook.io.packets import MediaError
from vidbook.io.repair import repair, repair_all
from vidbook.io.video import open_video
from vidbook.io.write import frame_number, numbered_frame, write_video
from vidbook.utils import VidbookError


@pytest.fixture(scope='module')
def video(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp('video')/'whole.mp4', map(numbered_frame, range(20)), gop=5)


@pytest.fixture
def videos(video, tmp_path):
    "A folder of a few files, some of them with names that are hard on databases and shells"
    root = tmp_path/"it's 100% #1? & more"
    names = ['a.mp4', 'deep/er/b.mp4', "quote's.mp4", 'ö ü.mp4', 'per%20cent?#.mp4']
    for name in names:
        (root/name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(video, root/name)
    return root


bad_decoder = '''
import ctypes, os, time
import av
open_as_ever = av.open
def av_open(path, *args, **kwargs):
    name = os.path.basename(str(path))
    if 'hang' in name: ctypes.PyDLL(None).sleep(600)              # native code that holds the lock
    if 'crash' in name: ctypes.string_at(0)
    if 'greedy' in name: raise MemoryError
    if 'odd' in name: raise RuntimeError('quite unexpected')
    if 'slow' in name: time.sleep(.1)
    return open_as_ever(path, *args, **kwargs)
av.open = av_open
'''


@pytest.fixture
def decoder_of_horrors(tmp_path, monkeypatch):
    "In worker processes `av.open` hangs, crashes or is slow, by the name of the file"
    (tmp_path/'site').mkdir()
    (tmp_path/'site'/'sitecustomize.py').write_text(bad_decoder)
    monkeypatch.setenv('PYTHONPATH', str(tmp_path/'site'))


def test_the_index_neither_hangs_nor_dies(videos, video, decoder_of_horrors):
    for kind in ('hang', 'crash', 'greedy', 'odd'): shutil.copy(video, videos/f'{kind}.mp4')
    for i in range(20): shutil.copy(video, videos/f'fine{i}.mp4')
    start = time.monotonic()
    index = build_index(videos, limit=2, workers=2, progress=False)
    assert time.monotonic() - start < 20
    bad = dict(index.quarantine().itertuples(index=False))
    assert set(bad) == {f'{kind}.mp4' for kind in ('hang', 'crash', 'greedy', 'odd')}
    assert bad['hang.mp4'].startswith('it took longer than 2') and 'signal 11' in bad['crash.mp4']
    assert 'MemoryError' in bad['greedy.mp4'] and 'quite unexpected' in bad['odd.mp4']
    assert len(index) == 29 and index['fine7.mp4'].n_frames == 20


def test_bad_files_are_tried_again_only_on_request(videos, video, decoder_of_horrors, monkeypatch):
    shutil.copy(video, videos/'odd.mp4')
    build_index(videos, progress=False)
    monkeypatch.delenv('PYTHONPATH')
    assert build_index(videos, progress=False)['odd.mp4'].error
    assert build_index(videos, progress=False, again=True)['odd.mp4'].error is None


build = 'import sys; from vidbook.io.index import build_index; build_index(sys.argv[1], workers=2, progress=False)'


def states(root):
    "What a reader finds: how many entries, all of them whole"
    index = find_index(root)
    if index is None: return 0
    table = index.table()
    assert table['n_frames'].eq(20).all() and table['sha256'].nunique() <= 1
    index.close()
    return len(table)


def test_killed_at_any_moment_it_is_readable_and_goes_on(videos, video, decoder_of_horrors):
    for i in range(60): shutil.copy(video, videos/f'slow{i}.mp4')
    found, pause = [0], .6
    while found[-1] < 10:
        process = subprocess.Popen([sys.executable, '-c', build, str(videos)], stderr=subprocess.DEVNULL)
        time.sleep(pause)
        process.kill()
        process.wait()
        found.append(states(videos))
        pause += .8
    assert found == sorted(found) and found[-1] < 65
    start = time.monotonic()
    assert len(build_index(videos, workers=2, progress=False)) == 65
    assert time.monotonic() - start < .1*(65 - found[-1])/2 + 6      # only the rest


def test_half_a_write_is_undone(videos, tmp_path):
    "A writer killed within a transaction leaves a journal: the next reader finds the state before"
    index = build_index(videos, progress=False)
    db = sqlite3.connect(index.file)
    db.execute('pragma cache_size = 1')
    db.executemany('insert or replace into files (path, packets) values (?, ?)', [(f'{i}.mp4', bytes(4000)) for i in range(200)])
    copy = tmp_path/'moved'/'.vidbook'
    shutil.copytree(Path(index.file).parent, copy)                    # what a kill would leave
    db.rollback()
    assert os.path.exists(copy/'index.sqlite-journal')
    again = find_index(tmp_path/'moved')
    assert len(again) == 5 and again.root == str(tmp_path/'moved')


inherited = []


def facts(index, path):
    index = inherited[0] if inherited else index         # by fork also what the parent has open
    return index[path].n_frames, len(index), os.getpid() in index._open, os.getpid()


@pytest.mark.parametrize('start', ['fork', 'forkserver', 'spawn'])
def test_workers_read_it(videos, start):
    "A connection that the parent has open is neither used nor closed by its children"
    index = build_index(videos, progress=False)
    assert len(index) == 5
    inherited[:] = [index]
    with multiprocessing.get_context(start).Pool(2) as pool:
        found = pool.starmap(facts, [(index, 'a.mp4')]*8)
    assert {o[:3] for o in found} == {(20, 5, True)} and os.getpid() not in {o[3] for o in found}
    inherited.clear()
    assert index['deep/er/b.mp4'].n_frames == 20


def test_two_writers_at_once(videos, video):
    for i in range(30): shutil.copy(video, videos/f'{i}.mp4')
    writers = [subprocess.Popen([sys.executable, '-c', build, str(videos)]) for _ in range(2)]
    assert [w.wait(60) for w in writers] == [0, 0] and states(videos) == 35


def test_entries_follow_their_files(videos, video):
    index = build_index(videos, progress=False)
    entry = index.get(videos/'a.mp4')
    assert isinstance(entry, IndexEntry) and entry.size == video.stat().st_size and not entry.error
    os.utime(videos/'a.mp4', ns=(1, 1))                              # the same size, another time
    assert index.get('a.mp4') is None and index['a.mp4'] == entry
    (videos/'ö ü.mp4').unlink()
    index = build_index(videos, progress=False)
    assert index.get('a.mp4') == entry and len(index) == 4 and 'ö ü.mp4' not in index
    moved = videos.rename(videos.with_name('moved'))
    assert find_index(moved).get('deep/er/b.mp4').path == str(moved/'deep'/'er'/'b.mp4')
    assert len(build_index(moved, progress=False)) == 4


def test_lists_share_the_index_of_their_folder(videos):
    table = pd.DataFrame(dict(video=['a.mp4', 'a.mp4', 'frames', 'gone.mp4'], template=[None, None, 'img_{:05}.jpg', None]))
    table.attrs['root'] = str(videos)
    index = build_index(table, progress=False)
    assert index.table()['path'].tolist() == ['a.mp4', 'gone.mp4'] and index['gone.mp4'].error == 'there is no such file'
    assert len(build_index(videos, progress=False)) == 5             # what is gone is forgotten by whoever does not ask for it
    assert len(build_index([videos/'a.mp4'], root=videos, progress=False)) == 5
    assert video_paths(videos/'a.mp4') == (str(videos), [str(videos/'a.mp4')])


@pytest.mark.skipif(sys.platform != 'linux', reason='names that are no Unicode exist on Linux')
def test_names_that_are_no_unicode(videos, video):
    shutil.copy(video, os.fsencode(videos) + b'/\xff.mp4')
    index = build_index(videos, progress=False)
    assert len(index) == 6 and os.fsdecode(b'\xff.mp4') in index
    assert index.get(os.fsdecode(b'\xff.mp4')).n_frames == 20


def test_a_folder_that_cannot_be_written_to(videos, tmp_path, monkeypatch):
    "Its index goes to the user's cache folder, and is found there"
    monkeypatch.setenv('VIDBOOK_CACHE', str(tmp_path/'cache'))
    (videos/'.vidbook').write_text('in the way')
    index = build_index(videos, progress=False)
    assert index.file.startswith(str(tmp_path/'cache')) and index.root == str(videos)
    assert find_index(videos).file == index.file and index.get('a.mp4').n_frames == 20
    assert pickle.loads(pickle.dumps(index))['a.mp4'].path == str(videos/'a.mp4')


def test_bad_sources_and_bad_files_are_told(videos, tmp_path):
    (tmp_path/'empty').mkdir()
    for source, words in [(tmp_path/'empty', 'no video files'), (tmp_path/'absent', 'not there'), ([], 'no video files')]:
        with pytest.raises(VidbookError, match=words): build_index(source, progress=False)
    index = build_index(videos, progress=False)
    data = Path(index.file).read_bytes()
    Path(index.file).write_bytes(data[:len(data)//2])
    with pytest.raises(VidbookError, match='delete it'): Index(index.file).table()
    with pytest.raises(VidbookError, match='delete it'): build_index(videos, progress=False).table()


@pytest.mark.skipif(not hasattr(os, 'mkfifo'), reason='needs named pipes')
def test_a_file_that_never_answers(videos):
    "Opening a pipe waits for ever: the limit ends that too"
    os.mkfifo(videos/'pipe.mp4')
    index = build_index([videos/'a.mp4', videos/'pipe.mp4'], limit=1, progress=False)
    assert index['pipe.mp4'].error == 'it took longer than 1 s' and index['a.mp4'].n_frames == 20


def test_the_process_that_stops_is_the_one_that_was_asked_to(videos, video, decoder_of_horrors):
    "Ctrl-C ends within moments and keeps what is done"
    for i in range(200): shutil.copy(video, videos/f'slow{i}.mp4')
    process = subprocess.Popen([sys.executable, '-c', build, str(videos)], stderr=subprocess.PIPE)
    while not states(videos): time.sleep(.2)
    process.send_signal(signal.SIGINT)
    start = time.monotonic()
    process.communicate(timeout=20)
    assert time.monotonic() - start < 5 and 5 <= states(videos) < 205


@pytest.fixture(scope='module')
def corpus(tmp_path_factory):
    "Files of every kind, whole and broken, and what is in them"
    return make_corpus(tmp_path_factory.mktemp('corpus'))


def test_the_corpus_is_indexed_as_it_was_made(corpus):
    index = build_index([case.path for case in corpus], count=True, progress=False)
    wrong = []
    for case in corpus:
        entry, n = index[case.path], len(case.numbers)
        fine = entry.error is None and entry.n_frames == entry.decoded == n
        if not (fine if case.must == 'frames' else entry.error if case.must == 'error' else entry.error or entry.decoded <= n): wrong.append((case.name, entry))
    assert not wrong


def numbers(path):
    with open_video(path) as reader: return [frame_number(o) for o in reader.frames(range(len(reader)))]


def test_the_corpus_is_repaired(corpus, tmp_path):
    "What is whole stays whole, whatever its kind; of what is broken a beginning is left, or a typed error"
    saved = []
    for case in corpus:
        try: made = repair(case.path, tmp_path/f'{case.name}.mp4')
        except MediaError as e:
            assert case.must != 'frames' and 'cannot be repaired' in e.why, case.name
            continue
        found = numbers(made)
        if 'trimmed' in case.name and find_spec('decord'):             # which refuses the original
            with open_video(made, 'decord') as reader: assert reader.name == 'decord'
        assert found == list(case.numbers)[:len(found)] and (case.must != 'frames' or len(found) == len(case.numbers)), case.name
        if case.must != 'frames': saved.append(case.name)
    assert len(saved) > 5


def test_whatever_decodes_can_be_encoded_again(corpus, tmp_path):
    "Every frame at its time, upright, of whatever size"
    for case in corpus:
        if case.must != 'frames': continue
        with open_video(case.path) as old, open_video(repair(case.path, tmp_path/f'{case.name}.mp4', how='reencode')) as new:
            assert [frame_number(o) for o in new.frames(range(len(new)))] == list(case.numbers), case.name
            assert new.size == old.size and new.codec == 'h264' and abs(new.pts - old.pts).max() < .002, case.name


kinds = 'b_pyramid fragments stream matroska mpeg4_b hevc'.split()


def test_random_damage(corpus, tmp_path, capfd):
    "A broken file has a reason, one without a reason decodes to its end; nothing is printed; what is repaired decodes"
    for case in corpus:
        if case.name not in kinds: continue
        for k, data in enumerate(mutations(case.path, 40)): (tmp_path/f'{case.name}{k}{case.path.suffix}').write_bytes(data)
    index = build_index(tmp_path, count=True, limit=10, workers=2, progress=False)
    table = index.table()
    bad = table.dropna(subset='error')
    assert len(table) == 40*len(kinds) and 40 < len(bad) < len(table) - 10
    assert not [o for o in bad['error'] if o.split(':')[0].endswith('Error') or 'longer than' in o or 'signal' in o]
    good = table[table['error'].isna()]
    assert (good['n_frames'] == good['decoded']).all()
    done = [*repair_all([index[o].path for o in bad['path'][::4]], tmp_path, workers=2, progress=False)]
    assert {type(o.error) for o in done} == {type(None), MediaError}
    assert capfd.readouterr() == ('', '')
