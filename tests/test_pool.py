"Processes that hang, crash, are killed or outlive their parent: what a notebook cannot show"
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import pytest

from vidbook.io.pool import Done, KillableExecutor, PoolError, WorkerError, map_files
from vidbook.utils import VidbookError

trouble = '''
import ctypes, os, signal, sys, time
from vidbook.io.packets import MediaError

class Odd(Exception):
    def __init__(self, a, b): super().__init__(a)          # does not pickle back

def hang(_): ctypes.PyDLL(None).sleep(600)                   # holds the lock: no signal handler, no other thread runs
def crash(_): ctypes.string_at(0)
def leave(_): sys.exit(7)
def odd(_): raise Odd('strange', 1)
def refuse(path): raise MediaError(path, 'it hums')
def chat(x):
    print('hello')
    os.write(1, b'native hello')
    return sys.stdin.read(), x
def large(n): return len(bytearray(int(n)))
def tell(file):
    with open(file, 'w') as f: f.write(str(os.getpid()))
    hang(0)
def mixed(i):
    if i % 10 == 3: crash(i)
    if i % 10 == 7: refuse(f'{i}.mp4')
    return i*i
'''


@pytest.fixture
def module(tmp_path, monkeypatch):
    "A module that workers find as this process does"
    (tmp_path/'trouble_makers.py').write_text(trouble)
    monkeypatch.syspath_prepend(tmp_path)
    import trouble_makers
    yield trouble_makers
    del sys.modules['trouble_makers']


def gone(pid, seconds=10):
    "Is the process no more, or only a zombie?"
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try: state = open(f'/proc/{pid}/stat').read().rpartition(')')[2].split()[0]
        except (FileNotFoundError, ProcessLookupError): return True
        if state == 'Z': return True
        time.sleep(.05)
    return False


def test_hanging_native_code_ends_at_the_limit_and_the_others_go_on(module):
    with KillableExecutor(2, limit=1) as executor:
        start = time.monotonic()
        hung, fine = executor.submit(module.hang, 'a.mp4'), [executor.submit(module.mixed, i) for i in (0, 1, 2)]
        assert [o.result() for o in fine] == [0, 1, 4]
        with pytest.raises(PoolError, match='a.mp4: it took longer than 1 s'): hung.result()
        assert time.monotonic() - start < 10


def test_crashes_errors_and_answers_in_between(module):
    done = {o.item: o for o in map_files(module.mixed, range(60), workers=2, limit=30, progress=False)}
    assert len(done) == 60
    for i, o in done.items():
        if i % 10 == 3: assert isinstance(o.error, PoolError) and o.error.item == str(i) and 'SIGSEGV' in o.error.why
        elif i % 10 == 7: assert type(o.error).__name__ == 'MediaError' and o.error.path == f'{i}.mp4' and o.error.why == 'it hums'
        else: assert o == Done(i, i*i)


def test_whatever_a_call_does_its_answer_arrives(module):
    with KillableExecutor(1) as executor:
        assert executor.submit(module.chat, 5).result() == ('', 5)
        with pytest.raises(VidbookError, match='Odd: strange'): executor.submit(module.odd, 1).result()
        with pytest.raises(PoolError, match='exit status 7'): executor.submit(module.leave, 1).result()
        assert len(executor.submit(bytes, 50_000_000).result()) == 50_000_000


@pytest.mark.skipif(sys.platform != 'linux', reason='address space is bounded on Linux only')
def test_memory_is_bounded(module):
    with KillableExecutor(1, memory=2e9) as executor:
        with pytest.raises(MemoryError): executor.submit(module.large, 4e9).result()
        assert executor.submit(module.large, 1e6).result() == 1e6


def test_a_process_damaged_from_outside_costs_no_item():
    "Killed while it is idle, or in the middle of a later call: the call is repeated in a fresh process"
    with KillableExecutor(1) as executor:
        os.kill(executor.submit(os.getpid).result(), signal.SIGKILL)
        assert executor.submit(abs, -3).result() == 3
        pid, future = executor.submit(os.getpid).result(), executor.submit(time.sleep, 1)
        while not executor.busy: time.sleep(.01)
        time.sleep(.2)
        os.kill(pid, signal.SIGKILL)
        assert future.result() is None


def test_nothing_is_left_after_the_block():
    with KillableExecutor(2) as executor: pids = set(executor.map(_pid_after_nap, range(6)))
    assert len(pids) == 2 and all(gone(p, .5) for p in pids)


def test_a_generator_that_is_left_behind_waits_for_no_thread(monkeypatch):
    "An error elsewhere leaves it to the garbage collection, which may run where a new thread begins: whoever joined one there would wait for ever"
    done = map_files(_pid_after_nap, range(100), workers=2, progress=False)
    pids = {next(done).result for _ in range(20)}
    joined = []
    monkeypatch.setattr(threading.Thread, 'join', lambda self, timeout=None: joined.append(self))
    done.close()
    assert joined == [] and all(map(gone, pids))


def _pid_after_nap(_):
    time.sleep(.05)
    return os.getpid()


script = '''
import sys
from vidbook.io.pool import map_files
print(sorted(o.result for o in map_files(abs, [-3, 2, -1], workers=2, progress=False)))
'''


def test_a_script_needs_no_guard(tmp_path):
    (tmp_path/'script.py').write_text(script)
    run = subprocess.run([sys.executable, 'script.py'], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (run.stdout, run.stderr) == ('[1, 2, 3]\n', '')


waiting = '''
import sys, trouble_makers
from vidbook.io.pool import map_files
for o in map_files(trouble_makers.tell, sys.argv[2:], workers=2, limit=float(sys.argv[1]), progress=False): pass
'''


@pytest.mark.skipif(not os.path.isdir('/proc/self'), reason='looks processes up in /proc')
@pytest.mark.parametrize('sign, limit', [(signal.SIGKILL, 3), (signal.SIGINT, 100)])
def test_no_process_outlives_its_parent(module, tmp_path, sign, limit):
    "Killed outright: workers end at their limit, even while they hold the lock; by Ctrl-C: at once"
    files = [tmp_path/'a', tmp_path/'b']
    (tmp_path/'script.py').write_text(waiting)
    parent = subprocess.Popen([sys.executable, 'script.py', str(limit), *map(str, files)], cwd=tmp_path, stderr=subprocess.PIPE)
    while not all(f.exists() and f.read_text() for f in files): time.sleep(.02)
    parent.send_signal(sign)
    parent.communicate(timeout=20)
    assert all(gone(int(f.read_text())) for f in files)


def test_a_worker_that_cannot_start_is_no_fault_of_the_file(monkeypatch):
    monkeypatch.setattr(sys, 'path', [])
    with KillableExecutor(1) as executor, pytest.raises(PoolError, match='a worker process: it does not start'):
        executor.submit(abs, -3).result()


def test_a_function_that_workers_cannot_import_is_no_fault_of_the_files(module, monkeypatch):
    monkeypatch.setattr(sys, 'path', [o for o in sys.path if not os.path.exists(os.path.join(o, 'trouble_makers.py'))])
    with pytest.raises(WorkerError, match='a worker process: it cannot import'): [*map_files(module.mixed, range(9), progress=False)]


@pytest.mark.parametrize('kind', [ThreadPoolExecutor, ProcessPoolExecutor])
def test_any_executor_will_do(kind):
    with kind(2) as executor:
        parts = [[o.result for o in map_files(abs, range(-600, 0), executor, progress=False, part=(k, 3))] for k in (1, 2, 3)]
        assert sorted(sum(parts, [])) == list(range(1, 601))
        assert executor.submit(abs, -1).result() == 1       # it stays open
