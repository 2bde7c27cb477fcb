"Preparation of data sets: killed and started again, in parts, with broken files in between, frames and times and colours kept"
import os, pickle, shutil, signal, subprocess, sys, time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from fractions import Fraction
from functools import partial
from multiprocessing import get_context

import av
import cv2
import numpy as np
import pandas as pd
import pytest

from vidbook.data.files import frame_names, frame_numbers, list_files
from vidbook.data.jobs import do_job, jobs_of
from vidbook.data.prepare import make_cache, reencode, trim_videos
from vidbook.data.prepare_frames import extract_audio, extract_flow, extract_frames
from vidbook.io.audio import read_audio
from vidbook.io.flow import dequantise_flow
from vidbook.io.source import VideoFile
from vidbook.io.video import open_video
from vidbook.io.write import frame_number, numbered_frame, write_video

silent = dict(progress=False, workers=2)


def numbers(path, size=(128, 96)):
    "The numbers painted in the frames of a video, which had `size` when they were painted, and when each is shown"
    with open_video(path, 'pyav') as r: return [frame_number(cv2.resize(o, size)) for o in r.frames(range(len(r)))], r.pts


@pytest.fixture(scope='module')
def videos(tmp_path_factory):
    "Six numbered videos in class folders, with names as people give them"
    root = tmp_path_factory.mktemp('videos')
    for i, name in enumerate(['run/a.mp4', 'run/b b.mp4', 'run/c & (1);!#[x].mp4', 'jump/d.e.f.mp4', 'jump/ü.mkv', 'jump/g.avi']):
        (root/name).parent.mkdir(exist_ok=True)
        write_video(root/name, map(numbered_frame, range(20+i)), 25, options=dict(bf=0) if name.endswith('avi') else {})
    return root


def visible(folder): return sorted(p.relative_to(folder).as_posix() for p in folder.rglob('*') if p.is_file() and '.vidbook' not in p.parts)


# ---- stopping and going on ------------------------------------------------------------------------------------------------
def test_killed_and_started_again(tmp_path):
    "SIGKILL in the middle: every file is whole or absent, what was done stays, the rest follows, nothing is left over"
    (tmp_path/'in').mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (30, 240, 320, 3), dtype=np.uint8)
    first = write_video(tmp_path/'in/0.mp4', noise)
    for i in range(1, 8): shutil.copy(first, tmp_path/f'in/{i}.mp4')
    out, command = tmp_path/'out', [sys.executable, '-c', 'import sys; from vidbook.cli.core import main; sys.exit(main())', 'prepare', 'cache',
                                    str(tmp_path/'in'), str(tmp_path/'out'), '--workers', '2']
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while len(list(out.glob('[0-9].mp4'))) < 2 and process.poll() is None: time.sleep(.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(1.5)                                                            # its workers end with the call that they are at
    done = {p.name: p.stat().st_mtime_ns for p in out.glob('[0-9].mp4')}
    assert 2 <= len(done) < 8
    for name in done:
        with open_video(out/name) as r: assert len(r) == 30
    assert subprocess.run(command, capture_output=True).returncode == 0
    assert visible(out) == sorted([f'{i}.mp4' for i in range(8)] + ['cache.csv'])
    kept = [name for name, at in done.items() if (out/name).stat().st_mtime_ns == at]
    assert len(kept) >= len(done) - 2                                          # at most those whose note was not yet written


def test_left_overs_of_the_dead_are_swept(videos, tmp_path):
    gone = subprocess.Popen([sys.executable, '-c', ''])
    gone.wait()
    left = tmp_path/f'.a-{gone.pid}-00000000.part.mp4'
    left.write_text('half')
    make_cache([videos/'run/a.mp4'], tmp_path, **silent)
    assert visible(tmp_path) == ['a.mp4', 'cache.csv'] and not left.exists()


def test_parts_are_the_whole(videos, tmp_path):
    "Two machines make the same bytes as one; the last knows all rows"
    for part in '1/2', '2/2': last = make_cache(videos, tmp_path/'parts', 64, part=part, **silent)
    whole = make_cache(videos, tmp_path/'whole', 64, **silent)
    assert visible(tmp_path/'parts') == visible(tmp_path/'whole')
    for name in visible(tmp_path/'whole'): assert (tmp_path/'parts'/name).read_bytes() == (tmp_path/'whole'/name).read_bytes()
    assert last.table.equals(whole.table) and len(whole.table) == 6 and not len(whole.failed)


def test_broken_files_in_between(videos, tmp_path):
    "Each is told with its reason; the others are made"
    shutil.copytree(videos, tmp_path/'in')
    data = (videos/'run/a.mp4').read_bytes()
    bad = {'run/cut.mp4': data[:len(data)//2], 'run/text.mp4': b'hello', 'jump/empty.mp4': b'', 'jump/noise.avi': os.urandom(5000)}
    for name, content in bad.items(): (tmp_path/'in'/name).write_bytes(content)
    for make in partial(make_cache, short_side=64), partial(extract_frames, short_side=48):
        made, failed = make(tmp_path/'in', tmp_path/'out', **silent)
        assert len(made) == 6 and sorted(failed['video']) == sorted(str(tmp_path/'in'/o) for o in bad)
        reasons = dict(zip((os.path.relpath(o, tmp_path/'in') for o in failed['video']), failed['error']))
        assert 'ends early' in reasons['run/cut.mp4'] and 'text file' in reasons['run/text.mp4'] and '0 bytes' in reasons['jump/empty.mp4']
    assert not [p for p in (tmp_path/'out').rglob('*') if '.part' in p.name or p.name.endswith('.new')]


def test_only_what_has_changed_is_made_again(videos, tmp_path):
    shutil.copytree(videos, tmp_path/'in')
    out = tmp_path/'out'
    def times(**kw):
        make_cache(tmp_path/'in', out, **(dict(short_side=64) | kw), **silent)
        return {p.stem: p.stat().st_mtime_ns for p in out.rglob('*.mp4')}
    first = times()
    assert times() == first
    shutil.copy(videos/'run/b b.mp4', tmp_path/'in/run/a.mp4')                                   # another video by the same name
    (out/'jump/g.mp4').write_bytes((out/'jump/g.mp4').read_bytes()[:-100])                      # cut off
    (out/'jump/ü.mp4').unlink()
    second = times()
    assert {k for k in first if second[k] != first[k]} == {'a', 'g', 'ü'}
    assert numbers(out/'run/a.mp4')[0] == list(range(21))
    third = times(crf=30)
    assert not {k for k in second if third[k] == second[k]}


def test_folders_are_filled_again(videos, tmp_path):
    "A video that became shorter leaves none of its old pictures; flow and other files in the folder stay"
    table = pd.DataFrame(dict(video=['v.mp4']))
    table.attrs['root'] = str(tmp_path)
    shutil.copy(videos/'jump/g.avi', tmp_path/'v.mp4')
    extract_frames(table, tmp_path/'out', **silent)
    extract_flow(table, tmp_path/'out', 'dis_ultrafast', **silent)
    assert len(frame_numbers(tmp_path/'out/v', 'img_{:05}.jpg')) == 25
    shutil.copy(videos/'run/a.mp4', tmp_path/'v.mp4')
    os.unlink(tmp_path/'out/v/img_00003.jpg')
    extract_frames(table, tmp_path/'out', **silent)
    assert len(frame_numbers(tmp_path/'out/v', 'img_{:05}.jpg')) == 20
    assert len(frame_numbers(tmp_path/'out/v', 'flow_{}_{:05}.jpg')) == 24
    assert extract_flow(table, tmp_path/'out', 'dis_ultrafast', **silent).table['n_frames'].tolist() == [19]


@pytest.mark.parametrize('kind', ['threads', 'fork', 'spawn'])
def test_any_executor(videos, tmp_path, kind):
    executor = ThreadPoolExecutor(2) if kind == 'threads' else ProcessPoolExecutor(1, get_context(kind))
    with executor: made, failed = make_cache([videos/'run/a.mp4', videos/'jump/g.avi'], tmp_path, 64, executor=executor, progress=False)
    assert len(made) == 2 and not len(failed)


def test_jobs_pickle_by_name(videos):
    call = pickle.dumps((partial(do_job, make=reencode, settings={}), jobs_of(list_files(videos), 'out', 'cache', '.mp4')))
    assert b'__main__' not in call and b'<locals>' not in call
    assert pickle.loads(call)[1][0].video.path.startswith(str(videos))


# ---- frames, times, colours, sound --------------------------------------------------------------------------------------
def test_every_frame_is_there(videos, tmp_path):
    made, _ = make_cache(videos, tmp_path, **silent)
    for i, name in enumerate(['run/a', 'run/b b', 'run/c & (1);!#[x]', 'jump/d.e.f', 'jump/ü', 'jump/g']):
        found, pts = numbers(tmp_path/f'{name}.mp4')
        assert found == list(range(20+i))
        np.testing.assert_allclose(pts, np.arange(20+i)/25, atol=1e-6)


def paint(path, pix_fmt, n=6, codec='libx264', **tags):
    "A colourful video, tagged"
    y, x = np.mgrid[:120, :160]
    with av.open(str(path), 'w') as out:
        stream = out.add_stream(codec, rate=25, options=dict(crf='4') if codec == 'libx264' else {})
        stream.width, stream.height, stream.pix_fmt = 160, 120, pix_fmt
        for k, v in tags.items(): setattr(stream.codec_context, k, v)
        for i in range(n):
            picture = np.stack([x+8*i, y*2, 255-(x+y)//2], -1).clip(0, 255).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, 'rgb24').reformat(format=pix_fmt, dst_colorspace='itu709' if tags.get('colorspace') == 1 else None)
            frame.pts, frame.time_base = i, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


@pytest.mark.parametrize('name, pix_fmt, tags', [('plain.mp4', 'yuv420p', {}), ('hd.mp4', 'yuv420p', dict(colorspace=1)), ('phone.mp4', 'yuvj420p', dict(color_range=2)),
                                                 ('deep.mp4', 'yuv420p10le', {}), ('full.mkv', 'yuv444p', {}), ('camera.avi', 'yuvj420p', dict(codec='mjpeg', color_range=2))])
def test_colours_stay(tmp_path, name, pix_fmt, tags):
    "Matrix and range of the original are kept, so that readers show the same colours: no channel is off by a grey level or two"
    source = paint(tmp_path/name, pix_fmt, **tags)
    reencode(VideoFile(source), tmp_path/'out.mp4', None, False, dict(crf=4, g=16))
    with open_video(source, 'pyav') as a, open_video(tmp_path/'out.mp4', 'pyav') as b: before, after = (r.frames([0, 5]).astype(float) for r in (a, b))
    assert np.abs((after - before).mean((0, 1, 2))).max() < 2 and np.abs(after - before).mean() < 2


@pytest.mark.parametrize('turns', [1, 2, 3])
def test_turned_videos_stand(tmp_path, turns):
    "The picture is stored upright, whichever way the original was turned"
    path = write_video(tmp_path/'a.mp4', [np.rot90(numbered_frame(i, 360, 480), -turns) for i in range(5)], crf=10)
    data, one = bytearray(path.read_bytes()), 1 << 16
    a, b = {1: (0, -one), 2: (-one, 0), 3: (0, one)}[turns]
    at = data.index(b'tkhd') + 44
    for k, v in enumerate((a, b, 0, -b, a)): data[at+4*k:at+4*k+4] = v.to_bytes(4, 'big', signed=True)
    path.write_bytes(data)
    with open_video(path, 'pyav') as r: assert r.rotation == turns*90 % 360 and [frame_number(o) for o in r.frames(range(5))] == list(range(5))
    made, _ = make_cache([path], tmp_path/'out', 180, **silent)
    with open_video(tmp_path/'out/a.mp4', 'pyav') as r: assert (r.rotation, r.size) == (0, (240, 180))
    assert numbers(tmp_path/'out/a.mp4', (480, 360))[0] == list(range(5))


def packets(path):
    with av.open(str(path)) as f: return [bytes(p) for p in f.demux(f.streams.audio[0]) if p.size]


def test_sound_is_copied_or_encoded(tmp_path):
    "AAC as it is, byte for byte; PCM of an odd rate as AAC; both as long as before"
    tone = .5*np.sin(2*np.pi*440*np.arange(16000)/16000)
    path = write_video(tmp_path/'a.mp4', map(numbered_frame, range(25)), audio=tone, sample_rate=16000)
    with av.open(str(path)) as src, av.open(str(tmp_path/'b.mkv'), 'w') as out:
        new, speech = out.add_stream_from_template(src.streams.video[0]), out.add_stream('pcm_s16le', rate=11127, layout='mono')
        for packet in src.demux(video=0):
            if packet.size: packet.stream = new; out.mux(packet)
        frame = av.AudioFrame.from_ndarray((tone*32767).astype(np.int16)[None], 's16', 'mono')
        frame.rate, frame.pts = 11127, 0
        out.mux(speech.encode(frame)); out.mux(speech.encode(None))
    failed = make_cache([path, tmp_path/'b.mkv'], tmp_path/'out', 64, sound=True, **silent).failed
    assert not len(failed), failed.values.tolist()
    assert packets(tmp_path/'out/a.mp4') == packets(path)
    made, failed = extract_audio([tmp_path/'out/a.mp4', tmp_path/'out/b.mp4'], tmp_path/'wav', **silent)
    assert not len(failed), failed.values.tolist()
    assert made['rate'].tolist() == [16000, 11025]
    for name, rate, seconds in (('a', 16000, 1), ('b', 11025, 16000/11127)):
        assert abs((os.path.getsize(tmp_path/f'wav/{name}.wav') - 44)/2/rate - seconds) < .14


@pytest.mark.parametrize('name, pictures, speech', [('a.ts', 'libx264', 'aac'), ('a.webm', 'libvpx', 'libopus'), ('a.flv', 'libx264', 'aac'), ('a.avi', 'mpeg4', 'libmp3lame'),
                                                    ('a.mpg', 'mpeg2video', 'mp2')])
def test_any_container(tmp_path, name, pictures, speech):
    "Frames at their times and sound in step, whatever the original is: a click with each tenth frame"
    rate, source = 48000, tmp_path/name
    sound = np.zeros((1, 40*rate//25), np.int16)
    for i in range(0, 40, 10): sound[0, i*rate//25:][:240] = 16000*np.sin(np.arange(240)/3)
    with av.open(str(source), 'w') as out:
        video, audio = out.add_stream(pictures, rate=25, options={'deadline': 'realtime'} if 'vp' in pictures else {}), out.add_stream(speech, rate=rate, layout='mono')
        video.width, video.height, video.pix_fmt = 160, 120, 'yuv420p'
        for i in range(40):
            frame = av.VideoFrame.from_ndarray(numbered_frame(i, 120, 160), 'rgb24')
            block = av.AudioFrame.from_ndarray(sound[:, i*rate//25:(i+1)*rate//25].copy(), 's16', 'mono')
            frame.pts, frame.time_base, block.pts, block.time_base, block.rate = i, Fraction(1, 25), i*rate//25, Fraction(1, rate), rate
            out.mux(video.encode(frame)); out.mux(audio.encode(block))
        out.mux(video.encode(None)); out.mux(audio.encode(None))
    reencode(VideoFile(source), tmp_path/'out.mp4', 96, True, dict(crf=16, g=16))
    assert numbers(tmp_path/'out.mp4', (160, 120))[0] == list(range(40))
    def clicks(path):
        samples, found = read_audio(path)
        loud = np.flatnonzero(np.abs(samples[0]) > .2)
        return loud[np.diff(loud, prepend=-found) > found/20]/found
    with open_video(source, 'pyav') as a, open_video(tmp_path/'out.mp4', 'pyav') as b: np.testing.assert_allclose(a.pts, b.pts, atol=1e-6)
    np.testing.assert_allclose(clicks(source), np.arange(4)*.4, atol=.03)
    np.testing.assert_allclose(clicks(tmp_path/'out.mp4'), clicks(source), atol=.005)


def test_originals_are_safe(videos, tmp_path):
    "Nothing is written over what it is made of, and no result is taken for an original"
    shutil.copytree(videos, tmp_path/'in')
    for dest in tmp_path/"in", tmp_path:
        with pytest.raises(Exception, match='choose another folder to fill'): make_cache(tmp_path/'in', dest, **silent)
    assert visible(tmp_path/'in') == visible(videos)


def test_same_name_twice(tmp_path):
    for name in 'a.mp4', 'a.avi': write_video(tmp_path/'in'/name, map(numbered_frame, range(3)), options=dict(bf=0))
    assert make_cache(tmp_path/'in', tmp_path/'out', **silent).table['video'].tolist() == ['a.avi.mp4', 'a.mp4.mp4']


def test_parts_of_videos(videos, tmp_path):
    "Rows with the same video and other seconds; the cache makes one file of it and keeps the rows"
    table = pd.DataFrame(dict(id=['1', '2', '3'], video=['run/a.mp4', 'run/a.mp4', 'jump/g.avi'], start=[0., .4, .2], end=[.4, .8, np.nan], label=['x', 'y', 'x']))
    table.attrs['root'] = str(videos)
    cut, _ = trim_videos(table, tmp_path/'cut', **silent)
    assert [numbers(tmp_path/'cut'/o)[0] for o in cut['video']] == [list(range(10)), list(range(10, 20)), list(range(5, 25))]
    small, _ = make_cache(table, tmp_path/'small', 64, **silent)
    assert visible(tmp_path/'small') == ['cache.classes.txt', 'cache.csv', 'jump/g.mp4', 'run/a.mp4']
    assert small[['video', 'start', 'label']].values.tolist() == [['run/a.mp4', 0., 'x'], ['run/a.mp4', .4, 'y'], ['jump/g.mp4', .2, 'x']]


def test_flow_of_a_known_movement(tmp_path):
    "A texture that moves by (3, -2) pixels a frame: written, read back and dequantised it still does"
    texture = cv2.resize(np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8), (256, 192), interpolation=cv2.INTER_CUBIC)
    write_video(tmp_path/'a.mp4', [texture[40+2*t:136+2*t, 60-3*t:188-3*t] for t in range(5)], crf=8)
    extract_flow([tmp_path/'a.mp4'], tmp_path/'flow', 'dis', **silent)
    with open_video(VideoFile(tmp_path/'flow/a', template='flow_{}_{:05}.jpg')) as r: flow = dequantise_flow(r.frames(range(len(r))))
    assert flow.shape == (4, 96, 128, 2) and [*np.median(flow, (0, 1, 2)).round(1)] == pytest.approx([3, -2], abs=.15)
    assert frame_names('flow_{}_{:05}.jpg', 1) == ['flow_x_00001.jpg', 'flow_y_00001.jpg']
