"What every reader makes of every file of the corpus, of files spoilt at random, and of thousands of files in a row"
import os
import subprocess
import sys
from functools import partial

import numpy as np
import pytest

from vidbook.io.corpus import check_readers, make_corpus, read_spoilt, try_reader
from vidbook.io.packets import MediaError
from vidbook.io.pool import KillableExecutor, map_files
from vidbook.io.video import open_video, probe
from vidbook.io.write import numbered_frame, write_video

readers = 'pyav', 'decord', 'opencv'


@pytest.fixture(scope='module')
def cases(tmp_path_factory): return {case.name: case for case in make_corpus(tmp_path_factory.mktemp('corpus'))}


@pytest.mark.skipif(not hasattr(os, 'sched_getscheduler'), reason='priorities are asked of Linux')
def test_the_process_keeps_its_priority(cases):
    "Or all that it starts later would take the machine for itself, and processes that wait for each other would never come to an end"
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


def test_every_reader_gives_the_frame_or_an_error(cases):
    table = check_readers(cases.values(), readers)
    assert not [(name, *row) for name,row in table.iterrows() if row.str.contains('WRONG').any()]
    for name,row in table.iterrows():
        if cases[name].must == 'frames': assert row['pyav'] == row['salvage'] == 'exact' and row.str.startswith('exact').all(), name
        if cases[name].must == 'error': assert {*row[list(readers)]} == {'error'}, name
    assert (table.loc[['no_b', 'b_pyramid', 'vp9'], ['decord', 'opencv']] == 'exact').all(axis=None)      # they are not all handed on
    cut = table['salvage'][[name.startswith('cut_') and 'ts' not in name for name in table.index]]
    assert (cut != 'error').sum() >= 17 and len(cut) == 20


def test_a_reader_that_lies_is_caught(cases, monkeypatch):
    "The table itself tested: a reader that is a frame late"
    from vidbook.io.pyav import PyAVReader
    pictures = PyAVReader._pictures
    def late(self, idxs): return ((i, picture) for i,(_,picture) in zip(idxs, pictures(self, np.minimum(idxs + 1, len(self) - 1))))
    monkeypatch.setattr(PyAVReader, '_pictures', late)
    assert try_reader(cases['no_b'], 'pyav').startswith('WRONG')


kinds = 'b_pyramid no_b trimmed_b_pyramid fragments turned_90 vfr_b3 matroska stream vp9 hevc av1 mpeg4_b mpeg2 asf_b mjpeg raw'.split()


def test_500_spoilt_files(cases, tmp_path, capfd):
    "Frames or a typed error, in bounded time and memory; nobody dies, and nothing prints what is in a file"
    marked = {}
    for name in (kind for kind in kinds if kind in cases):
        marked[name] = tmp_path/cases[name].path.name
        marked[name].write_bytes(cases[name].path.read_bytes() + b'\0\0\0\x18free' + b'MARKED BYTES\0'*2)
    items = [(str(path), seed) for path in marked.values() for seed in range(-(-500//len(marked)))][:500]
    with KillableExecutor(2, limit=30, memory=6e9) as executor:
        start = max(o.result for o in map_files(peak_memory, [1, 2], executor, progress=False))        # a fork begins with what its parent has
        done = [*map_files(partial(read_spoilt, folder=tmp_path, readers=('pyav',)), items, executor, progress=False),
                *map_files(partial(read_spoilt, folder=tmp_path, readers=('decord', 'opencv')), items[::4], executor, progress=False)]
        memory = max(o.result for o in map_files(peak_memory, [1, 2], executor, progress=False))
    assert len(done) == 625 and not [(o.item, o.error) for o in done if o.error]
    outcomes = [outcome for o in done for outcome in o.result.values()]
    assert {'frames', 'error'} < set(outcomes)                   # the damage is neither too great nor too small
    assert memory-start < 1.2e9                                  # FFmpeg believes a header's number of samples
    assert sorted(tmp_path.iterdir()) == sorted(marked.values())
    printed = ''.join(capfd.readouterr())
    assert 'MARKED' not in printed and all(o.isprintable() or o in '\n\r\t' for o in printed)


def peak_memory(_):
    import resource
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss*1024


opens = """
import os, sys
from vidbook.io.video import open_video
from vidbook.io.reader import Window

def resident():
    with open('/proc/self/statm') as f: return int(f.read().split()[1])*os.sysconf('SC_PAGE_SIZE')

def read(reader, n):
    for _ in range(n):
        with open_video(sys.argv[1], reader) as r: r.frames([0, 3]), r.frames([5], window=Window((1.5, 2, 30, 20), (16, 16)))

def fail(n):
    for _ in range(n):
        try: open_video(sys.argv[2], on_error='salvage')
        except Exception as e: assert type(e).__name__ == 'MediaError'

for reader,n in (('pyav', 2000), ('decord', 300), ('opencv', 300)):
    read(reader, n//4)
    before = resident()
    read(reader, n)
    print(reader, resident() - before)
fail(50); before = resident(); fail(500)
print('broken', resident() - before)
print('open files', len(os.listdir('/proc/self/fd')))
"""


@pytest.mark.skipif(not os.path.exists('/proc/self/statm'), reason='asks Linux for the memory of a process')
def test_memory_is_flat(tmp_path):
    path = write_video(tmp_path/'small.mp4', [numbered_frame(i)[:32, :48] for i in range(8)], gop=4)
    (tmp_path/'broken.mp4').write_bytes(path.read_bytes()[:900])
    run = subprocess.run([sys.executable, '-c', opens, str(path), str(tmp_path/'broken.mp4')], capture_output=True, text=True, check=True)
    grown = {line.rpartition(' ')[0]: int(line.rpartition(' ')[2]) for line in run.stdout.splitlines()}
    assert grown.pop('open files') < 20
    assert max(grown.values()) < 20e6, grown                     # the heap settles; a lost decoder is 100 kB an opening


def test_probe_tells_what_is_painted(cases):
    facts = dict(turned_90=90, turned_180=180, turned_270=270)
    for name,rotation in facts.items(): assert (probe(cases[name].path).rotation, probe(cases[name].path).width) == (rotation, 128)
    assert (probe(cases['odd_size'].path).width, probe(cases['odd_size'].path).height) == (127, 95)
    assert {name: probe(cases[name].path).codec for name in ('hevc', 'vp9', 'mpeg4') if name in cases} == dict(hevc='hevc', vp9='vp9', mpeg4='mpeg4')
    with pytest.raises(MediaError): open_video(cases['text'].path, on_error='salvage')
