"Web servers that cut, change, lie and send too much; kills; several processes; tar files and stores; shards as tables"
import gzip, hashlib, io, json, multiprocessing, os, random, signal, socket, subprocess, sys, tarfile, threading, time
from contextlib import contextmanager
from functools import partial

import numpy as np
import pandas as pd
import pytest

from vidbook.data.shards import read_shards, write_shards
from vidbook.data.table import TableError, check_table
from vidbook.io import download as module, remote
from vidbook.io.download import RemoteError, download
from vidbook.io.remote import open_bytes, tar_members
from vidbook.utils import VidbookError

content = random.Random(0).randbytes(300_000)
digest = hashlib.sha256(content).hexdigest()
quick = dict(pause=.01, timeout=1, progress=False)


# ---- a server that says what it is told ---------------------------------------------------------------------------------------
class Asked(dict):
    "The headers of a request, in lower case, and its path"
    def __init__(self, text):
        first, *lines = text.split('\r\n')
        self.path = first.split()[1]
        super().__init__((k.lower(), v) for k, v in (o.split(': ', 1) for o in lines if o))

    @property
    def start(self): return int(self['range'][6:-1]) if 'range' in self else 0


def answer(connection, play, log):
    with connection:
        connection.settimeout(5)
        text = b''
        while b'\r\n\r\n' not in text:
            if not (more := connection.recv(4096)): return
            text += more
        log.append(Asked(text.decode()))
        try:
            for block in play(log[-1], len(log)):
                if isinstance(block, bytes): connection.sendall(block)
                elif block == 'reset': connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b'\1\0\0\0\0\0\0\0'); return
                else: time.sleep(block)
        except OSError: pass


@contextmanager
def serving(play):
    "The address of a server, and the list of what it is asked; `play(asked, n)` yields bytes to send, seconds to wait, or 'reset'"
    log = []
    with socket.create_server(('127.0.0.1', 0)) as server:
        def loop():
            while True:
                try: connection, _ = server.accept()
                except OSError: return
                threading.Thread(target=answer, args=(connection, play, log), daemon=True).start()
        threading.Thread(target=loop, daemon=True).start()
        try: yield f'http://127.0.0.1:{server.getsockname()[1]}/clip.mp4', log
        finally: server.shutdown(socket.SHUT_RDWR)


def head(status=200, **headers):
    lines = [f'HTTP/1.1 {status} Reason', 'Connection: close'] + [f'{k.replace("_", "-")}: {v}' for k, v in headers.items()]
    return '\r\n'.join([*lines, '', '']).encode()


def whole(data=content, etag='"1"', **headers): return head(ETag=etag, Content_Length=len(data), **headers)


def rest(asked, data=content, etag='"1"'):
    "The rest of `data`, as asked for"
    if asked.get('if-range') != etag: return whole(data, etag) + data
    start = asked.start
    return head(206, ETag=etag, Content_Length=len(data)-start, Content_Range=f'bytes {start}-{len(data)-1}/{len(data)}') + data[start:]


def fails(play, where, match, **kw):
    "The download fails so, and nothing stands under its name"
    with serving(play) as (url, log):
        with pytest.raises(RemoteError, match=match) as e: download(url, where/'x', **{**quick, 'retries': 1, **kw})
    assert not (where/'x').exists() and '\n' not in str(e.value) and str(e.value).endswith('.')
    return log


def arrives(play, where, **kw):
    "The download ends well, and nothing stands beside it"
    with serving(play) as (url, log): path = download(url, where/'x', **{**quick, **kw})
    assert path.read_bytes() == content and os.listdir(where) == ['x']
    return log


# ---- cuts -------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize('end', ['reset', b'', 1.2])
def test_cut_twice_and_resumed(tmp_path, end):
    "By a reset, by an end, and by a silence"
    def play(asked, n):
        data = rest(asked)
        yield data[:100_000] if n < 3 else data
        if n < 3: yield end
    log = arrives(play, tmp_path, sha256=digest)
    assert len(log) == 3 and 90_000 < log[1].start < log[2].start and log[1]['if-range'] == '"1"'


def test_a_silence_before_the_answer(tmp_path):
    def play(asked, n):
        if n == 1: yield 1.5
        yield rest(asked)
    assert len(arrives(play, tmp_path)) == 2


def test_nobody_there(tmp_path):
    with socket.create_server(('127.0.0.1', 0)) as server: port = server.getsockname()[1]
    with pytest.raises(RemoteError, match='cannot be reached .*2 times; try again later'): download(f'http://127.0.0.1:{port}/a', tmp_path, retries=1, **quick)
    assert not os.listdir(tmp_path)


def test_a_server_that_always_cuts_at_the_same_place_is_given_up(tmp_path):
    def play(asked, n): yield rest(asked)[:150_000] if n == 1 else rest(asked)[:150]
    log = fails(play, tmp_path, 'ended after 1.* of 300000 bytes, 3 times; try again later', retries=2)
    assert len(log) == 3


# ---- changes ----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize('honours', [True, False])
def test_a_file_that_changes_in_between_is_begun_anew(tmp_path, honours):
    "Whether the server minds If-Range or sends the rest of the new version"
    def play(asked, n):
        if n == 1: yield whole(content[::-1], '"0"') + content[:-100_001:-1]
        else:
            if not honours and 'range' in asked: asked['if-range'] = '"1"'
            yield rest(asked)
    log = arrives(play, tmp_path)
    assert len(log) == (2 if honours else 3) and log[1].start > 90_000


def test_without_a_version_nothing_is_resumed(tmp_path):
    def play(asked, n): yield head(Content_Length=len(content), ETag='W/"1"') + (content[:1000] if n == 1 else content)
    log = arrives(play, tmp_path)
    assert ['range' in o for o in log] == [False, False]


def test_a_date_is_a_version(tmp_path):
    date = 'Sat, 01 Jan 2022 00:00:00 GMT'
    def play(asked, n):
        start = asked.start
        if n == 1: yield head(Last_Modified=date, Content_Length=len(content)) + content[:100_000]
        else: yield head(206, Last_Modified=date, Content_Length=len(content)-start, Content_Range=f'bytes {start}-299999/300000') + content[start:]
    log = arrives(play, tmp_path)
    assert log[1]['if-range'] == date


# ---- lies -------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize('lie', [dict(Content_Range='bytes 0-299999/300000'), dict(Content_Range='bytes x'), {}])
def test_another_range_than_asked_for(tmp_path, lie):
    def play(asked, n):
        if n == 1: yield whole() + content[:1000]
        elif 'range' in asked: yield head(206, ETag='"1"', Content_Length=5, **lie) + b'wrong'
        else: yield whole() + content
    assert len(arrives(play, tmp_path)) == 3


def test_a_part_that_nobody_asked_for(tmp_path):
    def play(asked, n): yield head(206, ETag='"1"', Content_Length=5, Content_Range='bytes 0-4/300000') + content[:5]
    fails(play, tmp_path, 'answers 206 and not with the part')


def test_length_too_short(tmp_path):
    "The sum tells"
    def play(asked, n): yield head(ETag='"1"', Content_Length=1000) + content
    fails(play, tmp_path, f'SHA-256 is {hashlib.sha256(content[:1000]).hexdigest()} and not {digest}', sha256=digest)
    fails(play, tmp_path, 'it has 1000 bytes where 300000 are expected', size=300_000)
    assert not os.listdir(tmp_path)


def test_length_too_long(tmp_path):
    def play(asked, n): yield head(ETag='"1"', Content_Length=400_000) + content
    fails(play, tmp_path, 'ended after 300000 of 400000 bytes')
    fails(play, tmp_path, 'sends 400000 bytes or more, 300000 are expected', size=300_000)


def test_no_length(tmp_path):
    "Without a length a cut looks like an end"
    def play(asked, n): yield head(ETag='"1"') + content
    fails(play, tmp_path, 'does not say how long it is.*; give its size or sha256')
    arrives(play, tmp_path, size=len(content))
    os.remove(tmp_path/'x')
    arrives(play, tmp_path, sha256=digest)


def chunks(data, size=60_000): return b''.join(b'%x\r\n%b\r\n' % (len(o), o) for o in (data[i:i+size] for i in range(0, len(data), size)))


def test_chunks(tmp_path):
    "Their end is marked, so that a cut shows"
    def play(asked, n): yield head(Transfer_Encoding='chunked') + (chunks(content)[:100_000] if n == 1 else chunks(content) + b'0\r\n\r\n')
    assert len(arrives(play, tmp_path)) == 2


def test_without_end(tmp_path):
    def play(asked, n):
        yield head(Transfer_Encoding='chunked')
        while True: yield chunks(content)
    fails(play, tmp_path, 'or more, 1000000 are allowed; raise max_bytes', max_bytes=1_000_000)
    fails(play, tmp_path, 'or more, 300000 are expected', size=300_000)


def test_packed_though_not_asked_for(tmp_path):
    def play(asked, n): yield whole(gzip.compress(content), Content_Encoding='gzip')
    assert fails(play, tmp_path, 'packed in a way')[0]['accept-encoding'] == 'identity'


def test_no_http(tmp_path):
    def play(asked, n): yield b'\0\1\2SSH-2.0 hello\r\n\r\n'
    fails(play, tmp_path, 'cannot be reached')


# ---- statuses and redirects -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize('status, match', [(404, '404 .*mend the address'), (403, 'permission'), (401, 'login'), (410, 'another source'), (400, '400')])
def test_final_answers(tmp_path, status, match):
    assert len(fails(lambda asked, n: [head(status, Content_Length=0)], tmp_path, match)) == 1 and not os.listdir(tmp_path)


@pytest.mark.parametrize('status', [500, 502, 503, 429, 408])
def test_passing_answers(tmp_path, status):
    assert len(arrives(lambda asked, n: [head(status, Content_Length=0, Retry_After=0) if n < 3 else rest(asked)], tmp_path)) == 3


def test_a_part_longer_than_the_file(tmp_path):
    "The server has no such range: from the beginning"
    part = module._Part('', tmp_path/'x')
    with serving(lambda asked, n: [head(416, Content_Length=0) if 'range' in asked else rest(asked)]) as (url, log):
        part.url = url
        part.begin('"1"')
        part.path.write_bytes(b'0'*400_000)
        assert download(url, tmp_path/'x', **quick).read_bytes() == content and len(log) == 2


def test_redirects(tmp_path):
    def play(asked, n):
        if asked.path == '/clip.mp4': yield head(302, Location='/other/place', Content_Length=0)
        else: yield rest(asked)
    assert [o.path for o in arrives(play, tmp_path)] == ['/clip.mp4', '/other/place']


@pytest.mark.parametrize('to', ['file:///etc/passwd', 'ftp://127.0.0.1/a', 'data:text/plain,a', 'gopher://127.0.0.1/', '//[', '/clip.mp4'])
def test_redirects_to_elsewhere(tmp_path, to):
    fails(lambda asked, n: [head(302, Location=to, Content_Length=0)], tmp_path, 'redirect|302|no web address')


def test_never_from_https_to_http(monkeypatch):
    redirects, asked = module._Redirects(), module.request.Request('https://host/a')
    with pytest.raises(RemoteError, match='redirects from https to http'): redirects.redirect_request(asked, None, 302, '', {}, 'http://host/a')
    assert redirects.redirect_request(asked, None, 302, '', {}, 'https://other/a').full_url == 'https://other/a'


# ---- names, room, notes -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize('end', ['..', '%2e%2e', 'a%2f..%2f..%2fb', '..%5cb', 'c:%5cb', '%00', ''])
def test_names_that_leave_the_folder(tmp_path, end):
    with pytest.raises(RemoteError, match='no file name'): download(f'http://127.0.0.1:1/{end}', tmp_path, **quick)
    assert not os.listdir(tmp_path)


def test_a_full_disk_is_noticed_before(tmp_path, monkeypatch):
    monkeypatch.setattr(module.shutil, 'disk_usage', lambda path: type('Usage', (), dict(free=1000)))
    fails(lambda asked, n: [whole() + content], tmp_path, 'make room')


def test_a_folder_of_that_name(tmp_path):
    (tmp_path/'a'/'clip.mp4').mkdir(parents=True)
    with pytest.raises(RemoteError, match='it is there already, but it is a folder'): download('http://127.0.0.1:1/clip.mp4', tmp_path/'a', **quick)


@pytest.mark.parametrize('note', [b'', b'[1]', b'{', b'\xff', b'{"version": "\\"1\\""}', b'{"url": "http://elsewhere/", "version": "\\"1\\""}'])
def test_a_spoilt_note(tmp_path, note):
    "What came is not used"
    (tmp_path/'x.part').write_bytes(b'0'*1000)
    (tmp_path/'x.part.json').write_bytes(note)
    assert 'range' not in arrives(lambda asked, n: [rest(asked)], tmp_path)[0]


def test_no_note_stands_beside_bytes_of_another_version(tmp_path, monkeypatch):
    "Not even if the process dies between a new beginning and its note"
    part = module._Part('http://127.0.0.1/x', tmp_path/'x')
    part.begin('"0"')
    part.path.write_bytes(b'old')
    with monkeypatch.context() as m:
        m.setattr(module, 'atomic_path', None)
        with pytest.raises(TypeError): part.begin('"1"')
    assert part.version is None


def test_an_empty_file(tmp_path):
    with serving(lambda asked, n: [head(Content_Length=0)]) as (url, log): assert download(url, tmp_path/'x', **quick).read_bytes() == b''


# ---- kills and crowds -------------------------------------------------------------------------------------------------------
fetch = 'import sys; from vidbook.io.download import download; download(sys.argv[1], sys.argv[2], sha256=sys.argv[3], progress=False)'


def start(url, dest): return subprocess.Popen([sys.executable, '-c', fetch, url, str(dest), digest])


def test_killed_and_resumed_by_another_process(tmp_path):
    def play(asked, n):
        data = rest(asked)
        yield data[:200_000]
        if n == 1: yield 5
        yield data[200_000:]
    with serving(play) as (url, log):
        process = start(url, tmp_path/'x')
        while process.poll() is None and not ((tmp_path/'x.part').exists() and (tmp_path/'x.part').stat().st_size > 150_000): time.sleep(.02)
        process.kill()
        process.wait()
        assert not (tmp_path/'x').exists()
        download(url, tmp_path/'x', **quick)
    assert (tmp_path/'x').read_bytes() == content and log[1].start > 150_000 and os.listdir(tmp_path) == ['x']


def test_three_processes_at_once(tmp_path):
    "One fetches, all have the file"
    def play(asked, n):
        yield whole() + content[:100_000]
        yield .5
        yield content[100_000:]
    with serving(play) as (url, log):
        processes = [start(url, tmp_path/'x') for _ in range(3)]
        assert [p.wait() for p in processes] == [0, 0, 0]
    assert len(log) == 1 and (tmp_path/'x').read_bytes() == content and os.listdir(tmp_path) == ['x']


def test_threads_at_once(tmp_path):
    with serving(lambda asked, n: [rest(asked), .1]) as (url, log):
        threads = [threading.Thread(target=partial(download, **quick), args=(url, tmp_path/'x')) for _ in range(6)]
        for t in threads: t.start()
        for t in threads: t.join()
    assert len(log) == 1 and (tmp_path/'x').read_bytes() == content and os.listdir(tmp_path) == ['x']


def test_killed_while_others_wait(tmp_path):
    "The lock goes with the process: the next one takes over"
    def play(asked, n):
        data = rest(asked)
        yield data[:200_000]
        if n == 1: yield 20
        yield data[200_000:]
    with serving(play) as (url, log):
        first = start(url, tmp_path/'x')
        while not log: time.sleep(.02)
        second = start(url, tmp_path/'x')
        time.sleep(.4)
        first.kill()
        assert second.wait() == 0 and first.wait() == -signal.SIGKILL
    assert (tmp_path/'x').read_bytes() == content and len(log) == 2


def mischief(rng):
    "A server that does one of many things at each request"
    data = content[:rng.randint(0, 50_000)]
    def play(asked, n):
        what, etag = rng.randrange(10), rng.choice(['"1"', '"1"', '"1"', 'W/"1"'])
        good = rest(asked, data, etag)
        cut = rng.randint(0, len(good))
        if what < 4: yield good
        elif what == 4: yield good[:cut]
        elif what == 5: yield good[:cut]; yield 'reset'
        elif what == 6: yield head(rng.choice([500, 503, 416, 206, 204, 304])) + b'?'*9
        elif what == 7: yield head(206, ETag='"1"', Content_Length=4, Content_Range=f'bytes {rng.randint(0, 9)}-9/10') + b'1234'
        elif what == 8: yield head(Transfer_Encoding='chunked', ETag=etag) + chunks(data, 7000)[:cut] + b'0\r\n\r\n'*rng.randint(0, 1)
        else: yield whole(data, etag) + data[:cut]
    return data, play


@pytest.mark.parametrize('seed', range(60))
def test_whatever_a_server_does_the_file_is_right_or_absent(tmp_path, seed):
    "Three calls a server; its sum is known, as for every published file"
    data, play = mischief(random.Random(seed))
    expected = hashlib.sha256(data).hexdigest()
    with serving(play) as (url, log):
        for _ in range(3):
            try: path = download(url, tmp_path/'x', expected, retries=2, pause=.001, timeout=.5, progress=False)
            except RemoteError: assert not (tmp_path/'x').exists()
            else: assert path.read_bytes() == data and os.listdir(tmp_path) == ['x']


# ---- tar files and stores ---------------------------------------------------------------------------------------------------
def pack(path, files, mode='w', **kw):
    "A tar file of bytes"
    with tarfile.open(path, mode, **kw) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return str(path)


files = {'a.mp4': content[:5000], 'deep/folder/' + 'long'*40 + '.mp4': content[5000:9000], 'ünïcode ✓.mp4': b'', 'z.json': b'{}'}


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch): monkeypatch.setenv('VIDBOOK_CACHE', str(tmp_path_factory.mktemp('cache')))


@pytest.fixture
def store():
    "A store that counts what it is asked for"
    fsspec = pytest.importorskip('fsspec')
    fs = fsspec.filesystem('memory')
    fs.store.clear()
    return fs


@pytest.mark.parametrize('fmt', [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_of_all_formats(tmp_path, store, fmt):
    some = {k: v for k, v in files.items() if fmt != tarfile.USTAR_FORMAT or len(k) < 100}
    tar = pack(tmp_path/'x.tar', some, format=fmt)
    store.put(tar, '/x.tar')
    assert [*tar_members(tar)] == [*some] and {k: tuple(v) for k, v in tar_members('memory://x.tar').items()} == tar_members(tar)
    for name, data in some.items():
        for where in tar, 'memory://x.tar':
            with open_bytes(f'tar://{name}::{where}') as f: assert f.read() == data and f.seek(0, 2) == len(data)


def test_written_by_tar(tmp_path):
    "Names with ./ and folders in between"
    (tmp_path/'in'/'sub').mkdir(parents=True)
    (tmp_path/'in'/'sub'/'a.mp4').write_bytes(b'abc')
    subprocess.run(['tar', 'cf', str(tmp_path/'x.tar'), '.'], cwd=tmp_path/'in', check=True)
    assert open_bytes(f'tar://sub/a.mp4::{tmp_path}/x.tar').read() == b'abc'


@pytest.mark.parametrize('kind', [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE, tarfile.GNUTYPE_SPARSE])
def test_only_plain_members(tmp_path, kind):
    with tarfile.open(tmp_path/'x.tar', 'w') as tar:
        info = tarfile.TarInfo('a')
        info.type, info.linkname = kind, '/etc/passwd'
        tar.addfile(info)
    with pytest.raises(RemoteError, match="'a' is a folder or a link"): open_bytes(f'tar://a::{tmp_path}/x.tar')


@pytest.mark.parametrize('mode, tool', [('w:gz', 'gunzip'), ('w:bz2', 'bunzip2'), ('w:xz', 'unxz')])
def test_compressed(tmp_path, mode, tool):
    with pytest.raises(RemoteError, match=f'compressed.*`{tool}`'): tar_members(pack(tmp_path/'x.tar', files, mode))


def test_twice_the_same_name(tmp_path):
    tar = pack(tmp_path/'x.tar', files)
    pack(tar, dict(list(files.items())[:1]), 'a')
    with pytest.raises(RemoteError, match="holds 'a.mp4' twice; pack it again"): tar_members(tar)


def test_cut_anywhere(tmp_path):
    "A whole index or an error, never a part of one"
    whole = open(pack(tmp_path/'x.tar', files), 'rb').read()
    ends = [m for m in range(0, len(whole), 256)]
    for end in ends:
        path = tmp_path/f'{end}.tar'
        path.write_bytes(whole[:end])
        try: assert [*tar_members(path)] == [*files]
        except RemoteError as e: assert 'whole tar file' in str(e)


def test_bytes_changed_anywhere(tmp_path):
    "An index with places in the file, or an error that names it; quickly"
    whole = open(pack(tmp_path/'x.tar', files, format=tarfile.PAX_FORMAT), 'rb').read()
    rng, path, good = random.Random(0), tmp_path/'y.tar', 0
    for i in range(300):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            place = rng.choice([0, 512*rng.randrange(len(data)//512)]) + rng.randrange(512)
            data[place % len(data)] = rng.choice([0, 255, 128, 45, 48, rng.randrange(256)])
        if rng.random() < .8:                                                  # a sum that is right again
            for at in range(0, len(data)-512, 512):
                if data[at+257:at+262] == b'ustar': data[at+148:at+156] = b'%06o\0 ' % (sum(data[at:at+148]) + 256 + sum(data[at+156:at+512]))
        path.write_bytes(data)
        try: members = tar_members(path)
        except RemoteError as e: assert 'y.tar' in str(e) and '\n' not in str(e)
        else:
            good += 1
            assert all(o is None or 0 <= o[0] <= o[0]+o[1] <= len(data) for o in members.values())
    assert 30 < good < 300


@pytest.mark.parametrize('kind', [b'0', b'Z'])
@pytest.mark.parametrize('size', [b'\xfc\x00', b'\xfe\x00', b'\xff\xff'])
def test_sizes_below_zero(tmp_path, kind, size):
    "A header that leads back to the one before, for ever"
    data = bytearray(open(pack(tmp_path/'x.tar', dict(a=b'', b=b'2')), 'rb').read())
    data[512+124:512+136], data[512+156:512+157] = b'\xff'*10 + size, kind
    data[512+148:512+156] = b'%06o\0 ' % (sum(data[512:512+148]) + 256 + sum(data[512+156:1024]))
    (tmp_path/'x.tar').write_bytes(data)
    with pytest.raises(RemoteError): tar_members(tmp_path/'x.tar')


def test_a_store_is_asked_little(tmp_path, store, monkeypatch):
    "One scan for all processes, one request for a clip"
    store.put(pack(tmp_path/'x.tar', files), '/x.tar')
    assert open_bytes('tar://a.mp4::memory://x.tar').read() == files['a.mp4']
    remote._indexes.clear()                                                    # as in another process
    asked, cat = [], type(store).cat_file
    monkeypatch.setattr(type(store), 'open', None)                             # what a scan needs
    def cat_file(self, path, version=None, start=None, end=None):               # S3 has a version before the others
        asked.append(path)
        return cat(self, path, start, end)
    with monkeypatch.context() as m:
        m.setattr(type(store), 'cat_file', cat_file)
        assert open_bytes('tar://a.mp4::memory://x.tar').read() == files['a.mp4'] and len(asked) == 1
    assert remote.read_members('memory://x.tar', [*files]) == [*files.values()]


def read_in_child(path): return open_bytes(path).read()


@pytest.mark.parametrize('start', ['fork', 'forkserver', 'spawn'])
def test_other_processes(tmp_path, start):
    path = f'tar://a.mp4::{pack(tmp_path/"x.tar", files)}'
    assert open_bytes(path).read() == files['a.mp4']
    with multiprocessing.get_context(start).Pool(2) as pool: assert pool.map(read_in_child, [path]*4) == [files['a.mp4']]*4


def test_web_address_opens_like_a_path(tmp_path):
    pack(tmp_path/'x.tar', files)
    data = (tmp_path/'x.tar').read_bytes()
    with serving(lambda asked, n: [whole(data) + data]) as (url, log):
        assert open(open_bytes(url), 'rb').read() == data
        assert open_bytes(f'tar://a.mp4::{url}').read() == files['a.mp4'] and len(log) == 1


# ---- shards -----------------------------------------------------------------------------------------------------------------
def videos(folder, n=12, **columns):
    "A table of files that nobody decodes"
    folder.mkdir(exist_ok=True)
    for i in range(n): (folder/f'{i:02}.mp4').write_bytes(content[i*1000:i*2000+500])
    df = pd.DataFrame(dict(video=[f'{i:02}.mp4' for i in range(n)], label=['b', 'a', 'c', 'a']*(n//4), split=['train', 'train', 'valid']*(n//3)) | columns)
    df.attrs['root'] = str(folder)
    return df


def bytes_of(table): return {row.id: open_bytes(row.video).read() for row in table.itertuples()}


def test_a_round_trip(tmp_path):
    "Every column and every byte, whatever lies in the cells"
    columns = dict(source=['ü', None, 'x/y', 'a\nb']*3, id=[f'clip {i}' for i in range(12)])
    df = videos(tmp_path/'in', **columns)
    df.attrs['vocab'] = ['c', 'b', 'a', 'never']
    write_shards(df, tmp_path/'out', 30_000, progress=False)
    found = read_shards(tmp_path/'out')
    assert found.attrs['vocab'] == ['c', 'b', 'a', 'never'] and [*found['id']] == columns['id'] and [*found['label']] == [*df['label']]
    assert [None if pd.isna(o) else o for o in found['source']] == columns['source'] and [*found['split']] == [*df['split']]
    assert bytes_of(found) == {f'clip {i}': (tmp_path/'in'/f'{i:02}.mp4').read_bytes() for i in range(12)}
    check_table(found)


def test_several_clips_of_a_video_and_several_labels(tmp_path):
    df = videos(tmp_path/'in', 2, label=[['a', 'b'], ['c']], split=['train', 'valid'])
    df = pd.concat([df.assign(start=[0., 1.], end=[1., 2.]), df.assign(start=[5., 6.], end=[7., 8.])], ignore_index=True)
    df.attrs['root'] = str(tmp_path/'in')
    shards = write_shards(df, tmp_path/'out', progress=False)
    assert len(tar_members(shards[0])) == 4
    found = read_shards(shards)
    assert sorted(zip(found['start'], found['end'], map(tuple, found['label']))) == sorted(zip(df['start'], df['end'], map(tuple, df['label'])))


def test_parts_are_the_whole(tmp_path):
    df = videos(tmp_path/'in')
    whole = write_shards(df, tmp_path/'a', 20_480, progress=False)
    parts = [write_shards(df, tmp_path/'b', 20_480, part=f'{k}/3', workers=1, progress=False) for k in (1, 2, 3)]
    names = [os.path.basename(o) for o in whole]
    assert len(names) > 3 and sorted(os.path.basename(o) for p in parts for o in p) == names and all(parts)
    assert [(tmp_path/'a'/n).read_bytes() for n in names] == [(tmp_path/'b'/n).read_bytes() for n in names]


def test_what_has_changed_is_written_again(tmp_path):
    df = videos(tmp_path/'in')
    shards = write_shards(df, tmp_path/'out', 20_480, progress=False)
    def rewritten(df):
        before = {o: os.stat(o).st_mtime_ns for o in shards if os.path.exists(o)}
        write_shards(df, tmp_path/'out', 20_480, progress=False)
        return [i for i, o in enumerate(shards) if os.stat(o).st_mtime_ns != before.get(o)]
    assert rewritten(df) == []
    os.utime(tmp_path/'in'/'00.mp4')                                           # another content, perhaps
    assert rewritten(df) == [0]
    assert rewritten(df.assign(split=[*df['split'][:-1], 'train'])) == [len(shards)-1]
    (tmp_path/'in'/'00.mp4').write_bytes(b'another, and older')
    os.utime(tmp_path/'in'/'00.mp4', ns=(0, 0))
    assert rewritten(df.assign(split=[*df['split'][:-1], 'train'])) == [0]
    with open(shards[1], 'r+b') as f: f.truncate(5000)
    os.remove(shards[2])
    assert rewritten(df.assign(split=[*df['split'][:-1], 'train'])) == [1, 2]


writing = 'import sys; from test_remote import videos; from pathlib import Path; from vidbook.data.shards import write_shards; p = Path(sys.argv[1]); ' \
          'write_shards(videos(p/"in"), p/"out", 20_480, workers=1, progress=False)'


def test_killed_and_resumed(tmp_path):
    "Whole shards or none; the second run writes the others"
    df, where = videos(tmp_path/'in'), tmp_path/'out'
    expected = [open(o, 'rb').read() for o in write_shards(df, tmp_path/'ref', 20_480, progress=False)]
    process = subprocess.Popen([sys.executable, '-c', writing, str(tmp_path)], env={**os.environ, 'PYTHONPATH': os.path.dirname(__file__)})
    while process.poll() is None and not (where/'shard-000001.tar').exists(): time.sleep(.001)
    process.kill()
    process.wait()
    assert all(o.read_bytes() in expected for o in where.glob('[!.]*.tar'))
    assert [open(o, 'rb').read() for o in write_shards(df, where, 20_480, progress=False)] == expected
    assert sorted(os.listdir(where)) == sorted(os.listdir(tmp_path/'ref'))


def test_a_video_that_is_not_there(tmp_path):
    df = videos(tmp_path/'in')
    (tmp_path/'in'/'05.mp4').unlink()
    with pytest.raises(TableError, match='05.mp4'): write_shards(df, tmp_path/'out', progress=False)
    assert not (tmp_path/'out').exists()


@pytest.mark.parametrize('name, match', [('./00.mp4', 'both have the key'), ('00.txt', 'no ending of a video')])
def test_videos_without_a_key_of_their_own(tmp_path, name, match):
    df = videos(tmp_path/'in')
    (tmp_path/'in'/'x').mkdir()
    (tmp_path/'in'/'00.txt').write_text('a')
    df.loc[3, 'video'] = name
    with pytest.raises(TableError, match=match): write_shards(df, tmp_path/'out', progress=False)


def read_packed(tmp_path, files, **kw): return read_shards(pack(tmp_path/'x.tar', files), **kw)


def test_shards_of_others(tmp_path):
    "Numbers and names, in .cls and .txt; what is neither video nor label is left alone"
    files = {'a/1.mp4': b'1', 'a/1.cls': b'1\n', 'a/1.flow.npy': b'?', 'a/2.MP4': b'2', 'a/2.cls': b'0', 'b/1.webm': b'3', 'b/1.txt': b'dog', '._x.mp4': b'', 'b/.hidden': b''}
    found = read_packed(tmp_path, files, vocab=['cat', 'dog'], split='train')
    assert [*found['id']] == ['a/1', 'a/2', 'b/1'] and [*found['label']] == ['dog', 'cat', 'dog'] and set(found['split']) == {'train'}
    assert bytes_of(found) == {'a/1': b'1', 'a/2': b'2', 'b/1': b'3'}
    assert [*read_packed(tmp_path, {k: v for k, v in files.items() if k[0] == 'a'}, split='train')['label']] == ['1', '0']


def test_splits_by_shard(tmp_path):
    one, two = (pack(tmp_path/f'{o}.tar', {f'{o}.mp4': b'', f'{o}.txt': o.encode()}) for o in 'ab')
    found = read_shards(dict(train=one, valid=[two]))
    assert [*found['split']] == ['train', 'valid'] and [*found['label']] == ['a', 'b']


@pytest.mark.parametrize('files, match', [
    ({'a.json': b'{}'}, 'x.tar: a has no video, only a.json; pack it again'), ({'a.mp4': b'', 'a.avi': b''}, "the key 'a' has a.mp4 and a.avi"),
    ({'a.mp4': b'', 'a.json': b'{'}, 'a.json is no JSON'), ({'a.mp4': b'', 'a.json': b'[]'}, 'no JSON object'), ({'a.mp4': b'', 'a.txt': b'\xff'}, 'no UTF-8'),
    ({'a.mp4': b'', 'a.cls': b'9'}, "x.tar: a: the label '9' is none of the 2 classes"), ({'a.mp4': b'', 'a.txt': b'x'*2_000_000}, 'too long for a label'),
    ({'a::b.mp4': b''}, 'has :: in its name'), ({'a.txt': b'x'}, 'has no video'), ({}, 'hold no videos')])
def test_shards_that_are_wrong(tmp_path, files, match):
    with pytest.raises(TableError, match=match): read_packed(tmp_path, files, vocab=['x', 'y'])


def test_what_a_shard_may_not_say(tmp_path):
    "Facts that would lead a reader elsewhere are not taken"
    facts = dict(video='/etc/passwd', template='{}', start_index=3, root='/', origin='x', label='a', path='/x')
    found = read_packed(tmp_path, {'a.mp4': b'', 'a.json': json.dumps(facts).encode()})
    assert found['video'][0] == f'tar://a.mp4::{tmp_path}/x.tar' and not {'template', 'start_index', 'root', 'path'} & set(found)


def test_a_clip_in_two_shards(tmp_path):
    tars = [pack(tmp_path/f'{i}.tar', {'a.mp4': b'', 'a.txt': b'xy'[i:i+1]}) for i in range(2)]
    with pytest.raises(TableError, match="1.tar: a: the id 'a' comes a second time"): check_table(read_shards(tars, split='train'))


@pytest.mark.parametrize('num_workers', [0, 2])
def test_the_same_clips_from_files_shards_and_stores(tmp_path, store, num_workers):
    from vidbook.data.loaders import VideoDataLoaders, dl_ids
    from vidbook.data.squares import make_squares
    from vidbook.io.sample import Clip
    table = make_squares(tmp_path/'squares', 2, 2, n_frames=16)
    shards = write_shards(table, tmp_path/'out', 30_000, progress=False)
    for o in shards: store.put(o, f'/shards/{os.path.basename(o)}')
    tables = [table, read_shards(shards), read_shards('memory://shards/*.tar', vocab=table.attrs['vocab'])]
    loaders = [VideoDataLoaders.from_table(o, Clip(n=3), 32, bs=2, num_workers=num_workers, device='cpu') for o in tables[:3 if num_workers == 0 else 2]]
    batches = [[[np.asarray(o) for o in batch] for batch in dls.valid] for dls in loaders]
    for found in batches[1:]: assert all(np.array_equal(a, b) for x, y in zip(found, batches[0]) for a, b in zip(x, y)) and len(found) == len(batches[0])
    assert dl_ids(loaders[0].valid) == dl_ids(loaders[1].valid)


@pytest.mark.parametrize('num_workers', [0, 2])
def test_a_shard_that_goes_away_is_named(tmp_path, num_workers):
    from vidbook.data.loaders import VideoDataLoaders
    from vidbook.data.squares import make_squares
    from vidbook.io.sample import Clip
    table = read_shards(write_shards(make_squares(tmp_path/'squares', 1, 1, n_frames=4), tmp_path/'out', progress=False))
    dls = VideoDataLoaders.from_table(table, Clip(n=2), 32, bs=2, num_workers=num_workers, device='cpu')
    os.rename(tmp_path/'out'/'shard-000000.tar', tmp_path/'away.tar')
    with pytest.raises(VidbookError, match='^tar://.*shard-000000.tar: there is no such file; mend the address.$'): list(dls.valid)
