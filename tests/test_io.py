"Readers against files of many kinds whose frames carry their numbers"
import pickle
import subprocess
import sys

import av
import numpy as np
import pytest

from vidbook.io.corpus import make_corpus
from vidbook.io.decoders import DecordReader, OpenCVReader
from vidbook.io.packets import Packets, PacketTable
from vidbook.io.pyav import PyAVReader
from vidbook.io.reader import Window, cut
from vidbook.io.salvage import SalvagedReader
from vidbook.io.source import VideoFile
from vidbook.io.video import MediaError, open_video, probe, read_frames
from vidbook.io.write import frame_number, stream_copy, write_video

N = 40


@pytest.fixture(scope='module')
def cases(tmp_path_factory): return {case.name: case for case in make_corpus(tmp_path_factory.mktemp('corpus'), N)}


names = ('no_b b_pyramid long_gop open_gop intra fragments full_range matroska stream raw ten_bit odd_size hevc hevc_ten_bit av1 vp9 vp8 mpeg4 '
         'mpeg4_b mpeg2 asf_b mjpeg trimmed_no_b trimmed_b_pyramid trimmed_open_gop trimmed_matroska turned_90 turned_180 turned_270 vfr_b0 vfr_b3 '
         'one_frame').split()


def case_of(cases, name):
    if name not in cases: pytest.skip(f'PyAV cannot encode {name} here')
    return cases[name]


def numbers(frames): return [frame_number(frame) for frame in frames]


def played(path):
    "All frames from the beginning, upright, by PyAV alone"
    with av.open(str(path)) as f: return np.stack([np.rot90(o.to_ndarray(format='rgb24'), round(o.rotation/90)) for o in f.decode(video=0)])


def test_the_corpus_is_complete(cases):
    encoders = dict(hevc='libx265', hevc_ten_bit='libx265', av1='libsvtav1', vp9='libvpx-vp9', vp8='libvpx')
    assert set(names) - set(cases) <= {name for name,codec in encoders.items() if codec not in av.codec.codecs_available}


@pytest.mark.parametrize('name', names)
def test_frames_are_exact(cases, name):
    "Bit for bit as played from the beginning, whatever is asked for"
    case = case_of(cases, name)
    truth, rng = played(case.path), np.random.default_rng(0)
    assert numbers(truth) == case.numbers
    with PyAVReader(case.path) as r:
        n = len(r)
        assert n == len(truth) and r.size == (truth.shape[2], truth.shape[1]) and r.pts[0] == 0 and (np.diff(r.pts) > 0).all()
        if 'vfr' not in name: assert abs(r.fps - 25) < .05 and np.allclose(r.pts, np.arange(n)/25, atol=2e-3)
        assert (r.frames(range(n)) == truth).all()
        assert all((r.frames([i])[0] == truth[i]).all() for i in rng.permutation(n)[:12])
        for _ in range(8):                                       # in any order, with repeats, dense and sparse
            idxs = rng.integers(0, n, rng.integers(1, 20))
            assert (r.frames(idxs) == truth[idxs]).all()
            idxs = np.arange(rng.integers(0, n), n, 2)
            assert (r.frames(idxs) == truth[idxs]).all()


@pytest.mark.parametrize('name', names)
@pytest.mark.parametrize('kind', [DecordReader, OpenCVReader])
def test_other_readers_are_exact_or_refuse(cases, name, kind):
    case = case_of(cases, name)
    try: reader = kind(case.path)
    except MediaError as e: assert str(case.path) in str(e)
    else:
        idxs = np.random.default_rng(1).integers(0, len(case.numbers), 20)
        with reader, PyAVReader(case.path) as r:
            gap = np.abs(reader.frames(idxs).astype(int) - r.frames(idxs)).mean()
            assert gap == 0 or 'ten_bit' in name and gap < 2     # each rounds ten bits in its own way
            assert reader.name == ('pyav' if name == 'av1' else kind.name) and len(reader) == len(r) and (reader.pts == r.pts).all()
    assert numbers(read_frames(case.path, [0, -1 + len(case.numbers)], reader=kind.name)) == [case.numbers[0], case.numbers[-1]]


@pytest.mark.parametrize('name', names)
def test_a_known_file_is_opened_without_a_look_at_its_packets(cases, name, monkeypatch):
    "With the table of an index the same frames come, and nothing is demuxed to find them"
    case = case_of(cases, name)
    with PyAVReader(case.path) as r: truth, packed, (w, h), turn = r.frames(range(len(r))), r.packets.table.pack(), r.size, r.rotation
    monkeypatch.setattr(Packets, '_survey', None)
    entry = type('Entry', (), dict(packets=PacketTable.unpack(packed), reader='pyav', width=w, height=h, rotation=turn, error=None))
    with open_video(case.path, entry=entry) as r:
        assert r.size == (w, h) and len(r) == len(truth)
        assert (r.frames(range(len(r))[::-1]) == truth[::-1]).all()
        assert (r.frames([len(r)//2]) == truth[[len(r)//2]]).all()


@pytest.mark.parametrize('name', names)
def test_windows_show_what_whole_frames_show(cases, name):
    "The part is the right one of the right frame; a plain crop of pixels in pairs is the same to the bit"
    path = case_of(cases, name).path
    with PyAVReader(path) as r:
        idxs, box = [len(r) - 1, 0], (10, 6, 90, 70)
        whole = r.frames(idxs)
        fast = r.frames(idxs, window=Window(box, (80, 64)))
        assert np.abs(fast.astype(int) - whole[:, 6:70, 10:90]).mean() < .3
        window = Window((3.3, 2.2, 99.9, 80.1), (62, 50))
        fast, slow = r.frames(idxs, window=window), np.stack([cut(o, window) for o in whole])
        assert np.abs(fast.astype(int) - slow).mean() < 5        # the painted numbers have hard edges of colour


def test_windows_of_other_readers(cases):
    window = Window((3.3, 2.2, 99.9, 80.1), (62, 50))
    whole = read_frames(cases['no_b'].path, [3, 20])
    for reader in (DecordReader(cases['no_b'].path), open_video(whole), open_video(VideoFile(cases['no_b'].path, start=.12))):
        idxs = [0, 1] if reader.name == 'array' else [3, 20] if reader.name == 'decord' else [0, 17]
        with reader: got = reader.frames(idxs, window=window)
        gap = np.abs(got.astype(int) - np.stack([cut(o, window) for o in whole])).mean()
        assert gap == 0 if reader.name != 'pyav' else gap < 5


@pytest.mark.parametrize('name,start', [('b_pyramid', 13), ('no_b', 30), ('matroska', 24), ('open_gop', 20)])
def test_cut_without_encoding(cases, tmp_path, name, start):
    path = cases[name].path
    trimmed = stream_copy(path, tmp_path/f'trimmed{path.suffix}', start=start/25)
    truth = played(trimmed)
    assert numbers(truth) == list(range(start, N))
    for reader in ('auto', 'pyav', 'decord', 'opencv'):
        with open_video(trimmed, reader) as r:
            assert len(r) == N - start
            for i in (0, 1, 5, N - start - 1, 3): assert (r.frames([i])[0] == truth[i]).all(), (reader, i)


def test_variable_frame_rate(cases):
    case = cases['vfr_b3']
    with av.open(str(case.path)) as f: truth = sorted(p.pts*p.time_base for p in f.demux(video=0) if p.size)
    info = probe(case.path)
    assert info.vfr and info.n_frames == N and not probe(cases['no_b'].path).vfr
    with open_video(case.path) as r: assert np.allclose(r.pts, [float(t - truth[0]) for t in truth])
    start, end = (float(truth[i] - truth[0]) for i in (25, 31))
    assert numbers(read_frames(VideoFile(case.path, start=start, end=end), range(6))) == list(range(25, 31))


def test_what_is_no_video_says_so(cases, tmp_path):
    data = cases['b_pyramid'].path.read_bytes()
    (tmp_path/'head.mp4').write_bytes(data[:600])
    (tmp_path/'accents.mp4').write_bytes('été,1\n'.encode()*400)
    whys = {cases['empty'].path: 'empty', cases['text'].path: 'text file', cases['playlist'].path: 'text file', cases['noise'].path: 'cannot open',
            cases['sound_only'].path: 'no pictures', tmp_path/'head.mp4': 'ends early', tmp_path/'accents.mp4': 'text file',
            tmp_path/'absent.mp4': 'there is no such file', tmp_path: 'there is no img_00001.jpg in it'}
    for path,why in whys.items():
        with pytest.raises(MediaError, match=f'{path.name}: .*{why}'): read_frames(path, [0])


def test_a_giant_picture_is_refused(tmp_path):
    "A header that asks for all memory, as damage leaves it"
    path = write_video(tmp_path/'giant.mkv', [np.zeros((16, 16, 3), np.uint8)], options=dict(preset='ultrafast'))
    PyAVReader.frames(PyAVReader(path), [0])
    old, Packets.options = Packets.options, {'max_pixels': '255'}
    try:
        with pytest.raises(MediaError, match='giant.mkv: PyAV cannot decode'): read_frames(path, [0])
    finally: Packets.options = old


def test_a_reader_that_fails_hands_on(cases, monkeypatch):
    "In the middle of a call, for good, and no frame is lost or repeated"
    case, calls = cases['no_b'], []
    def fail_at_ten(self, idxs):
        calls.append(len(idxs))
        for i in idxs:
            if i >= 10: raise MediaError(self.path, 'it hums')
            yield i, read_frames(case.path, [i])[0], None
    monkeypatch.setattr(DecordReader, '_decode', fail_at_ten)
    with open_video(case.path, 'decord') as r:
        assert numbers(r.frames([30, 2, 9, 10, 11, 2])) == [30, 2, 9, 10, 11, 2] and r.name == 'pyav'
        assert numbers(r.frames([1])) == [1] and len(calls) == 1
    late = lambda self, idxs: ((i, read_frames(case.path, [i+1])[0], (i+1)/25) for i in idxs)
    monkeypatch.setattr(DecordReader, '_decode', late)           # a decoder that is one frame late, and says so
    with open_video(case.path, 'decord') as r: assert numbers(r.frames([4, 5])) == [4, 5] and r.name == 'pyav'


@pytest.mark.parametrize('share', np.linspace(.05, .99, 10).round(3))
def test_salvage_is_what_was_there(cases, tmp_path, share):
    for name in ('b_pyramid', 'matroska', 'stream', 'no_b', 'fragments'):
        path = cases[name].path
        truth, data = played(path), path.read_bytes()
        broken = tmp_path/path.name
        broken.write_bytes(data[:int(len(data)*share)])
        got = {}
        for reader in ('auto', 'pyav', 'decord', 'opencv'):
            try:
                with open_video(broken, reader, on_error='salvage') as r: got[reader] = r.frames(range(len(r))), r.salvaged
            except MediaError as e: assert path.name in str(e)
        if not got: continue
        assert len(got) == 4                                     # all of them or none
        frames, promised = got['auto']
        assert all((o == frames).all() and p == promised for o,p in got.values())
        if promised is None: assert name == 'stream' and len(set(numbers(frames))) == len(frames)     # a shorter stream
        else: assert len(frames) <= promised and (frames == truth[:len(frames)]).all()


def test_salvage_of_what_is_whole(cases, tmp_path):
    "A sound file is read as ever; of damage in the middle nothing is concealed"
    for reader in ('auto', 'decord'):
        with open_video(cases['no_b'].path, reader, on_error='salvage') as r: assert (len(r), r.salvaged) == (N, None)
    assert open_video(read_frames(cases['no_b'].path, [0]), on_error='salvage').salvaged is None
    data = bytearray(cases['no_b'].path.read_bytes())
    with av.open(str(cases['no_b'].path)) as f: spot = [p for p in f.demux(video=0) if p.size][17]
    data[spot.pos+20:spot.pos+spot.size] = bytes(spot.size - 20)
    (tmp_path/'spoilt.mp4').write_bytes(data)
    with open_video(tmp_path/'spoilt.mp4', on_error='salvage') as r: assert (r.salvaged, numbers(r.frames(range(len(r))))) == (N, list(range(17)))
    with pytest.raises(MediaError, match='nothing in it decodes'):
        (tmp_path/'start.mp4').write_bytes(cases['b_pyramid'].path.read_bytes()[:3000])
        SalvagedReader(tmp_path/'start.mp4')


def test_a_reader_belongs_to_one_process(cases):
    with pytest.raises(TypeError, match='send the path'): pickle.dumps(open_video(cases['no_b'].path))
    error = pickle.loads(pickle.dumps(MediaError('a.mp4', 'it hums', 'tune it')))
    assert (error.path, error.why, str(error)) == ('a.mp4', 'it hums', 'a.mp4: it hums; tune it.')
    reader = open_video(cases['no_b'].path)
    reader._pid += 1                                             # as if a fork had copied it
    with pytest.raises(RuntimeError, match='open it in the worker'): reader.frames([0])


def test_import_is_light():
    code = ('import sys, vidbook.io.video, vidbook.io.corpus, vidbook.io.sample, vidbook.io.write; '
            'print({"torch", "fastai", "pandas", "cv2", "decord", "torchcodec", "fsspec"} & set(sys.modules))')
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip() == 'set()'


def test_decord_does_not_spoil_opencv(cases):
    "PNG is read after decord has been used; in a process of its own, as it matters who comes first"
    code = (f'from vidbook.io.decoders import DecordReader; DecordReader({str(cases["no_b"].path)!r}).frames([0]); '
            'import cv2, numpy; print(cv2.imdecode(cv2.imencode(".png", numpy.eye(8, dtype="uint8"))[1], 0))')
    assert 'None' not in subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout
