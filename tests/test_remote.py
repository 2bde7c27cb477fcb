"Web servers that cut, change, lie and send too much; kills; several processes; tar files and stores; shards as tables"
import gzip, hashlib, io, json, multiprocessing, os, random, signal, socket, subprocess, sys, tarfile, threading, time
from contextlib import contextmanager
from functools import partial

import numpy as np
import pandas as pd
import pytest

from vidbook.io import download as module, remote
from vidbook.io.download import RemoteError, cached_download, download
from vidbook.io.remote import open_bytes, tar_members

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


@pytest.mark.parametrize('kind', [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE])
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
    monkeypatch.setattr(type(store), 'cat_file', lambda self, *args, **kw: asked.append(args) or cat(self, *args, **kw))
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
