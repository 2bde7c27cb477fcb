"Readers against files of many kinds whose frames carry their numbers"
import pickle
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from vidbook.io.source import VideoFile
from vidbook.io.video import DecordReader, MediaError, PyAVReader, open_video, probe, read_frames
from vidbook.io.write import frame_number, numbered_frame, stream_copy

# Files of many kinds. `encode` uses PyAV directly, so that the files do not depend on vidbook's own writer.

N = 60
kinds_of_file = {                                # name: encoder, pixel format, options
    'no_b.mp4': ('libx264', 'yuv420p', dict(bf='0', g='12')),
    'pyramid.mp4': ('libx264', 'yuv420p', dict(bf='4', g='250', preset='slow')),
    'short_gop.mkv': ('libx264', 'yuv420p', dict(bf='3', g='10')),
    'open_gop.mp4': ('libx264', 'yuv420p', {'bf': '3', 'g': '15', 'x264-params': 'open-gop=1'}),
    'intra.mp4': ('libx264', 'yuv420p', dict(g='1')),
    'ten_bit.mp4': ('libx264', 'yuv420p10le', dict(g='20')),
    'odd.mp4': ('libx264', 'yuv444p', dict(g='20')),
    'fragments.mp4': ('libx264', 'yuv420p', dict(g='20')),
    'stream.ts': ('libx264', 'yuv420p', dict(g='20')),
    'raw.h264': ('libx264', 'yuv420p', dict(g='20')),
    'hevc.mp4': ('libx265', 'yuv420p', {'x265-params': 'log-level=none:keyint=20'}),
    'vp9.webm': ('libvpx-vp9', 'yuv420p', dict(g='20', deadline='realtime')),
    'divx.avi': ('mpeg4', 'yuv420p', dict(bf='2', g='12')),
    'disc.mpg': ('mpeg2video', 'yuv420p', dict(bf='2', g='12')),
}
kinds_of_file = {k: v for k,v in kinds_of_file.items() if v[0] in av.codec.codecs_available}


def encode(path, n=N, codec='libx264', pix_fmt='yuv420p', options=None):
    h, w = (95, 127) if 'odd' in path.name else (96, 128)
    container = {'movflags': 'frag_keyframe+empty_moov'} if 'fragments' in path.name else {}
    with av.open(str(path), 'w', options=container) as out:
        stream = out.add_stream(codec, rate=25, options=options or {})
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = w, h, pix_fmt, 2_000_000
        for i in range(n):
            frame = av.VideoFrame.from_ndarray(numbered_frame(i, h, w), format='rgb24')
            frame.pts = i
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def numbers(frames): return [frame_number(frame) for frame in frames]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('videos')
    for name,(codec, pix_fmt, options) in kinds_of_file.items(): encode(folder/name, N, codec, pix_fmt, options)
    return folder


def played(path):
    "All frames from the beginning, by PyAV alone"
    with av.open(str(path)) as f: return np.stack([frame.to_ndarray(format='rgb24') for frame in f.decode(video=0)])


@pytest.mark.parametrize('name', kinds_of_file)
def test_frames_are_exact(folder, name):
    truth, rng = played(folder/name), np.random.default_rng(0)
    with PyAVReader(folder/name) as r:
        assert len(r) == N and numbers(truth) == list(range(N))
        assert abs(r.fps - 25) < .05 and np.allclose(r.pts, np.arange(N)/25, atol=2e-3)
        assert r.size == (truth.shape[2], truth.shape[1])
        assert (r.frames(range(N)) == truth).all()
        singles = rng.permutation(N)[:12]
        assert all((r.frames([i])[0] == truth[i]).all() for i in singles)
        for _ in range(8):                                       # in any order, with repeats, dense and sparse
            idxs = rng.integers(0, N, rng.integers(1, 20))
            assert (r.frames(idxs) == truth[idxs]).all()
            idxs = rng.integers(0, N - 16) + np.arange(0, 16, 2)
            assert (r.frames(idxs) == truth[idxs]).all()


@pytest.mark.parametrize('name', kinds_of_file)
def test_decord_is_exact_or_refuses(folder, name):
    try: reader = DecordReader(folder/name)
    except MediaError as e: assert name in str(e)
    else:
        idxs = np.random.default_rng(1).integers(0, N, 20)
        assert numbers(reader.frames(idxs)) == idxs.tolist()
    assert numbers(read_frames(folder/name, [7, 50, 7], reader='decord')) == [7, 50, 7]


@pytest.mark.parametrize('name,start', [('pyramid.mp4', 13), ('no_b.mp4', 30), ('short_gop.mkv', 25), ('open_gop.mp4', 20)])
def test_cut_without_encoding(folder, tmp_path, name, start):
    cut = stream_copy(folder/name, tmp_path/'cut.mp4', start=start/25)
    truth = played(cut)
    assert numbers(truth) == list(range(start, N))
    for reader in ('auto', 'pyav', 'decord'):
        with open_video(cut, reader) as r:
            assert len(r) == N - start
            for i in (0, 1, 5, N - start - 1, 3): assert (r.frames([i])[0] == truth[i]).all(), (reader, i)


def test_variable_frame_rate(folder, tmp_path):
    with av.open(str(folder/'no_b.mp4')) as src, av.open(str(tmp_path/'vfr.mp4'), 'w') as out:
        copy = out.add_stream_from_template(src.streams.video[0])
        for i,packet in enumerate(p for p in src.demux(video=0) if p.size):
            packet.pts = packet.dts = (i + 2*max(0, i - 30))*512              # a third of the rate from frame 30 on
            packet.stream = copy
            out.mux(packet)
    info = probe(tmp_path/'vfr.mp4')
    assert info.vfr and info.n_frames == N
    with open_video(tmp_path/'vfr.mp4') as r: assert np.allclose(r.pts[[29, 30, 31, 59]], [29/25, 30/25, 33/25, 117/25])
    assert numbers(read_frames(VideoFile(tmp_path/'vfr.mp4', start=33/25, end=2), [0, -1 + 6])) == [31, 36]
    assert numbers(read_frames(tmp_path/'vfr.mp4', range(N))) == list(range(N))


def test_one_frame(tmp_path):
    one = encode(tmp_path/'one.mp4', 1)
    assert numbers(read_frames(one, [0, 0])) == [0, 0]
    assert (probe(one).n_frames, probe(one).fps, probe(one).duration) == (1, 25, 1/25)


def sound_only(path):
    with av.open(str(path), 'w') as out:
        stream = out.add_stream('aac', rate=16000, layout='mono')
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), 'fltp', 'mono')
        sound.sample_rate = 16000
        out.mux(stream.encode(sound))
        out.mux(stream.encode(None))
    return path


def test_what_is_no_video_says_so(folder, tmp_path):
    data = (folder/'pyramid.mp4').read_bytes()
    files = {'empty.mp4': (b'', 'empty'), 'text.mp4': ('été,1\n'.encode()*400, 'text file'), 'list.mp4': (b'#EXTM3U\nfile:///etc/hosts\n', 'text file'),
             'noise.mp4': (np.random.default_rng(0).bytes(5000), 'cannot open'), 'head.mp4': (data[:600], 'ends early')}
    for name,(content, why) in files.items():
        (tmp_path/name).write_bytes(content)
        with pytest.raises(MediaError, match=f'{name}: .*{why}'): read_frames(tmp_path/name, [0])
    with pytest.raises(MediaError, match='sound.m4a: .*no pictures'): open_video(sound_only(tmp_path/'sound.m4a'))
    with pytest.raises(MediaError, match='absent.mp4: there is no such file'): open_video(tmp_path/'absent.mp4')
    with pytest.raises(MediaError, match='there is no img_00001.jpg in it'): open_video(tmp_path)


@pytest.mark.parametrize('share', np.linspace(.05, .99, 10).round(3))
def test_truncated(folder, tmp_path, share):
    for name in ('pyramid.mp4', 'short_gop.mkv', 'stream.ts'):
        data = (folder/name).read_bytes()
        (tmp_path/name).write_bytes(data[:int(len(data)*share)])
        try:
            with open_video(tmp_path/name) as r: got = numbers(r.frames(range(len(r))))
        except MediaError as e: assert name in str(e)
        else: assert not name.endswith('mp4') and got == sorted(set(got))     # a stream that ends early is a shorter stream


def test_flipped_bits_never_raise_anything_else(folder, tmp_path):
    data, rng = np.frombuffer((folder/'pyramid.mp4').read_bytes(), np.uint8), np.random.default_rng(0)
    for _ in range(10):
        damaged = data.copy()
        damaged[rng.integers(40, len(data), 20)] ^= np.uint8(1 << rng.integers(0, 8))
        (tmp_path/'flipped.mp4').write_bytes(damaged)
        try: read_frames(tmp_path/'flipped.mp4', [0, 30])
        except (MediaError, IndexError) as e: assert 'flipped.mp4' in str(e)


def test_a_reader_belongs_to_one_process(folder):
    with pytest.raises(TypeError, match='send the path'): pickle.dumps(open_video(folder/'no_b.mp4'))
    error = pickle.loads(pickle.dumps(MediaError('a.mp4', 'it hums', 'tune it')))
    assert (error.path, error.why, str(error)) == ('a.mp4', 'it hums', 'a.mp4: it hums; tune it.')
    reader = open_video(folder/'no_b.mp4')
    reader._pid += 1                                             # as if a fork had copied it
    with pytest.raises(RuntimeError, match='open it in the worker'): reader.frames([0])


def test_import_is_light():
    code = 'import sys, vidbook.io.video, vidbook.io.sample, vidbook.io.write; print({"torch", "fastai", "cv2", "decord"} & set(sys.modules))'
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip() == 'set()'
