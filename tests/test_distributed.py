"Several processes on one machine: they validate as one does, learn what one learns, end together, and start by every launcher"
import io, os, re, shlex, stat, subprocess, sys
from pathlib import Path

import nbformat
import psutil
import pytest
import torch
from nbclient import NotebookClient
from safetensors.torch import load_file

from vidbook.data.squares import make_squares
from vidbook.learner.launch import LaunchError, _end, free_port, launch, launch_command
from vidbook.learner.state import load_state

worlds = 2, 3
here = Path(__file__).parent
unreadable = 'train/left/left_000.mp4', 'train/down/down_003.mp4', 'valid/down/down_004.mp4', 'valid/left/left_005.mp4'


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp('ranks')
    for name in ('squares', 'broken'): make_squares(root/name, n_train=4, n_valid=5, n_frames=8, side=32)
    for name in unreadable: (root/'broken'/name).write_text('no video')
    run = subprocess.run([sys.executable, here/'ranks.py', root], capture_output=True, text=True, env=os.environ | dict(CUDA_VISIBLE_DEVICES=''), timeout=1200)
    assert run.returncode == 0, run.stderr[-4000:]
    return root


@pytest.fixture(scope='module')
def found(root):
    "What each process has found: {number of processes: one for each}"
    return {world: [load_state(root/f'{world}-{rank}.safetensors') for rank in range(world)] for world in (1, *worlds)}


@pytest.mark.parametrize('world', worlds)
@pytest.mark.parametrize('n', range(1, 18))
def test_every_clip_is_validated_once(found, world, n):
    one, all_of_them = found[1][0]['evaluation'][n], [o['evaluation'][n] for o in found[world]]
    assert sorted(sum((o['read'] for o in all_of_them), [])) == list(range(n))
    assert max(len(o['read']) for o in all_of_them) <= 3*-(-(-(-n//3))//world)          # batches of three are shared evenly
    for o in all_of_them:
        assert o['ids'] == one['ids'] and len(o['ids']) == n
        assert o['values'] == pytest.approx(one['values'], abs=1e-12)
        assert all(torch.equal(o[k], one[k]) for k in ('probs', 'labels', 'losses'))


@pytest.mark.parametrize('world', worlds)
def test_views_and_predictions_are_those_of_one_process(found, world):
    one = found[1][0]['evaluation']
    for o in (o['evaluation'] for o in found[world]):
        assert o['views'] == pytest.approx(one['views'], abs=1e-12)
        assert o['shuffled'] == one['shuffled']
        for name in ('predictions', 'evaluate'):
            assert o[name]['ids'] == one[name]['ids'] and o[name]['losses'] == pytest.approx(one[name]['losses'], abs=1e-12)
            assert (o[name]['scores'] == one[name]['scores']).all()
    assert len(one['evaluate']['ids']) == 17


@pytest.mark.parametrize('world', worlds)
def test_clips_that_cannot_be_read(found, world):
    "Nothing shifts, all know of them, no process waits for another for ever"
    one = found[1][0]['broken']
    assert one['left out'] == ['down_004.mp4', 'left_005.mp4'] and len(one['ids']) == 5
    for o in (o['broken'] for o in found[world]):
        assert o['ids'] == one['ids'] and o['left out'] == one['left out'] and torch.equal(o['scores'], one['scores'])
        assert o['same'] and len(o['losses']) == 2


@pytest.mark.parametrize('world', worlds)
def test_equal_batches_give_equal_weights(found, world):
    "Six clips a step, as 6, 3 + 3 or 2 + 2 + 2; gradients of two steps gathered"
    one, start = found[1][0]['training'], found[world][0]['training']
    for o in (o['training'] for o in found[world]):
        assert o['same'] and o['lr'] == one['lr'] and o['callbacks'] == one['callbacks']
        for name in ('weights', 'average'):
            for k,v in o[name].items(): torch.testing.assert_close(v, one[name][k], atol=1e-7, rtol=0, msg=lambda m: f'{k}: {m}')
        assert o['values'] == start['values'] and o['values'][0] == pytest.approx(one['values'][0], abs=1e-6)
        assert o['again'] == pytest.approx(o['values'][-1], abs=1e-12)
        assert len(set(o['noise'])) == world                                       # dropout is another one in each
    assert any(not torch.equal(one['weights'][k], v) for k,v in one['average'].items())


@pytest.mark.parametrize('world', worlds)
def test_an_interrupted_training_goes_on_in_all(found, world):
    "Of the three fits the first process alone looks more than once into the folder, as it alone changes what is there"
    for rank,o in enumerate(o['resume'] for o in found[world]):
        assert o['same'] and 'epoch0001-batch000001' in o['saves']
        assert rank == 0 or o['looks'] == 3


@pytest.mark.parametrize('world', worlds)
def test_processes_that_differ_are_told(found, world):
    said = ['process 1 has another network or table than process 0 (validation clips: number: 4 against 5',
            'process 1 has another training than process 0 (learning rates: 0.1, 0.1 against 0.2, 0.2)',
            'process 1 has another list of clips than process 0 (number: 13 against 17', f'5 clips do not fill a batch of {world} x 5: take a smaller bs']
    for o in found[world]:
        assert len(o['differing']) == 4
        for words,complaint in zip(said, o['differing']): assert words in complaint


@pytest.mark.parametrize('world', worlds)
def test_only_the_first_process_exports(found, world): assert [o['export'] for o in found[world]] == [True] + [False]*(world - 1)


@pytest.mark.parametrize('world', worlds)
def test_only_the_first_process_prints(found, root, world):
    assert 'valid_loss' in (root/f'{world}-0.log').read_text()
    for rank in range(1, world): assert (root/f'{world}-{rank}.log').read_text() == ''


# Launchers

train = '''import atexit, sys
import torch.distributed
atexit.register(lambda: print('talk goes on' if torch.distributed.is_initialized() else 'talk has ended'))
from vidbook.all import VideoDataLoaders, accuracy, processes, set_seed, tsm_slim, video_learner
set_seed(0)
learn = video_learner(VideoDataLoaders.from_folder(sys.argv[1], size=32, bs=3, num_workers=0), tsm_slim, metrics=accuracy)
with learn.distributed(): learn.fit(1, 1e-3)
learn.export(sys.argv[2])
print('process {} {} is done'.format(*processes()))
'''

@pytest.fixture
def script(tmp_path):
    (tmp_path/'train.py').write_text(train)
    return tmp_path/'train.py'


def run(command, cwd=None, **env):
    "What a command prints; one that stands still ends with all that it has started, which would hold on to its output"
    words = command if isinstance(command, list) else shlex.split(command)
    process = subprocess.Popen(words, cwd=cwd, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               env=os.environ | dict(CUDA_VISIBLE_DEVICES='', PYTHONPATH=str(here.parent)) | env)
    try: said, _ = process.communicate(timeout=600)
    except subprocess.TimeoutExpired:
        _end(process)
        pytest.fail(f'{words}: not done within 600 s: {process.communicate()[0][-3000:]}')
    assert process.returncode == 0, said[-20000:]
    return said


def program(path, text):
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def with_path(*folders): return dict(PATH=os.pathsep.join([*map(str, folders), str(Path(sys.executable).parent), os.environ['PATH']]))


@pytest.mark.parametrize('how', ['accelerate', 'torchrun'])
def test_launchers(script, root, how):
    "What the template says is run as it stands"
    said = run(launch_command(str(script), [root/'squares', script.parent/'model'], n=2, how=how), **with_path())
    assert all(f'process {rank} 2 is done' in said for rank in range(2)) and said.count('valid_loss') == 1 and said.count('talk has ended') == 2
    assert load_file(script.parent/'model'/'model.safetensors')


mpirun = '''#!/usr/bin/env python3
"As Open MPI: so many processes, which learn from variables who they are"
import os, subprocess, sys
words = sys.argv[1:]
at = words.index('python')
n, given = int(words[words.index('-np') + 1]), dict(words[i+1].split('=', 1) for i,o in enumerate(words[:at]) if o == '-x')
parts = [subprocess.Popen(words[at:], env=os.environ | given | dict(OMPI_COMM_WORLD_RANK=str(i), OMPI_COMM_WORLD_SIZE=str(n), OMPI_COMM_WORLD_LOCAL_RANK=str(i)))
         for i in range(n)]
sys.exit(max(o.wait() for o in parts))
'''
srun = '''#!/bin/bash
# As Slurm: the words behind the options, once on each of the machines
shift
(SLURM_NODEID=1 "$@") & (SLURM_NODEID=0 "$@") && wait %1
'''

def test_mpi(script, root, tmp_path):
    "No MPI on this machine: a program in its place gives its variables"
    program(tmp_path/'bin'/'mpirun', mpirun)
    said = run(launch_command(str(script), [root/'squares', tmp_path/'model'], n=2, how='mpi'), **with_path(tmp_path/'bin'))
    assert all(f'process {rank} 2 is done' in said for rank in range(2))


def test_slurm(script, root, tmp_path):
    "No Slurm either: two machines of one process each, in its place, which meet by the name and port of the script"
    program(tmp_path/'bin'/'srun', srun)
    program(tmp_path/'bin'/'scontrol', '#!/bin/bash\necho 127.0.0.1\necho 127.0.0.1\n')
    (tmp_path/'job.sh').write_text(launch_command(str(script), [root/'squares', tmp_path/'model'], n=1, how='slurm', machines=2))
    said = run(['bash', str(tmp_path/'job.sh')], SLURM_JOB_NODELIST='local[0-1]', SLURM_JOB_ID=str(free_port() % 20000),
               **with_path(tmp_path/'bin'))
    assert all(f'process {rank} 2 is done' in said for rank in range(2))


@pytest.mark.parametrize('how, words', [('accelerate', 'accelerate launch --multi_gpu --num_processes=8 --num_machines=2 .*--machine_rank=1 --main_process_ip=node0 '),
                                        ('torchrun', 'torchrun --nnodes=2 --nproc_per_node=4 .*--rdzv_endpoint=node0:29500 --node_rank=1 '),
                                        ('mpi', 'mpirun -np 8 --map-by=ppr:4:node -x MASTER_ADDR=node0 '), ('slurm', r'#!/bin/bash\n(?s:.*)#SBATCH --nodes=2\n')])
def test_dry_run(script, how, words):
    there = ['--machine', '1', '--host', 'node0'] if how != 'slurm' else []
    said = run([sys.executable, '-m', 'vidbook.cli.core', 'launch', '--n', '4', '--machines', '2', *there, '--how', how, '--dry_run', str(script), '--epochs', '5'])
    assert re.match(words, said[said.index(words[:9].replace('(', '')[:9]):]) and '--epochs 5' in said
    if how == 'slurm': assert subprocess.run(['bash', '-n'], input=said[said.index('#!'):], text=True).returncode == 0


def die(how):
    import os, signal
    from vidbook.all import of_everyone, processes
    of_everyone(0)
    if processes()[0] == 1:
        if how == 'killed': os.kill(os.getpid(), signal.SIGKILL)
        for i in range(3000*(how == 'prints')): print(f'row: {i}')
        raise ValueError('clip 17 has no frames')
    of_everyone(1)                                                                  # waits for the one that is no more


@pytest.mark.parametrize('how, words', [('raises', r'process 1 has failed: ValueError: clip 17 has no frames\n\nTraceback(?s:.*)in die'),
                                        ('prints', r'process 1 has failed: ValueError: clip 17 has no frames\n\nTraceback(?s:.*)in die'),
                                        ('killed', 'process 1 has ended by SIGKILL')])
def test_a_process_that_dies_ends_all(how, words):
    with pytest.raises(LaunchError, match=words): launch(die, how, n=3, cpu=True)


class Cell(io.StringIO):
    "The output of a cell; calls `answer` when two processes have told their numbers"
    def __init__(self, answer): super().__init__(); self.answer = answer
    def write(self, text):
        super().write(text)
        if len(self.pids()) == 2: self.answer()
    def pids(self): return [int(o) for o in re.findall(r'process (\d+) waits\n', self.getvalue())]


def wait_for(path):
    import os, time
    from pathlib import Path
    print(f'process {os.getpid()} waits')
    end = time.monotonic() + 60
    while not (there := Path(path).exists()) and time.monotonic() < end: time.sleep(.05)
    print('answered' if there else 'waited in vain')


def test_the_log_comes_while_processes_run(tmp_path, monkeypatch):
    "They go on when what they have printed was seen"
    cell = Cell((tmp_path/'go').touch)
    monkeypatch.setattr(sys, 'stdout', cell)
    launch(wait_for, tmp_path/'go', n=2, cpu=True)
    assert cell.getvalue().count('answered') == 2


def test_an_interrupted_cell_ends_its_processes(tmp_path, monkeypatch):
    def interrupt(): raise KeyboardInterrupt
    monkeypatch.setattr(sys, 'stdout', cell := Cell(interrupt))
    with pytest.raises(KeyboardInterrupt): launch(wait_for, tmp_path/'never', n=2, cpu=True)
    assert len(cell.pids()) == 2 and not any(map(psutil.pid_exists, cell.pids()))


def test_launch_in_a_notebook(root, tmp_path):
    "The log comes into the cell; result and failure, too"
    cells = ['from vidbook.all import *',
             'def job(folder, rate):\n    learn = video_learner(VideoDataLoaders.from_folder(folder, size=32, bs=4, num_workers=0), tsm_slim, metrics=accuracy)\n'
             '    with learn.distributed(): learn.fit(1, rate)\n    print("rank", processes()[0])\n    return learn.recorder.values',
             f'values = launch(job, {str(root/"squares")!r}, rate=1e-3, n=2, cpu=True)\nlen(values[0])',
             f'launch(job, {str(root/"nowhere")!r}, rate=1e-3, n=2, cpu=True)']
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(o) for o in cells])
    NotebookClient(book, timeout=600, kernel_name='python3', allow_errors=True, resources=dict(metadata=dict(path=str(here.parent)))).execute()
    outputs = [o.outputs for o in book.cells]
    printed = ''.join(o.text for o in outputs[2] if o.output_type == 'stream')
    assert 'valid_loss' in printed and 'rank 0' in printed and '[1] rank 1' in printed, printed[-2000:]
    assert outputs[2][-1].data['text/plain'] == '3'
    assert outputs[3][-1].output_type == 'error' and 'nowhere is not there' in outputs[3][-1].evalue


def test_launched_commands(root, tmp_path):
    "`vidbook launch train` and `test`: one training, one model, the numbers of one process"
    vidbook = [sys.executable, '-m', 'vidbook.cli.core']
    two = [*vidbook, 'launch', '--n', '2', '--cpu']
    small = ['--set', 'size=32', 'test_size=32', 'batch=4', 'epochs=1', 'clip.n=2']
    said = run([*two, 'train', 'tsm_r50_k400_1x1x8', str(root/'squares'), *small, '--weights', 'none', '--out', 'model', '--workers', '0'], cwd=tmp_path)
    assert said.count('tsm_r50, 4 classes') == 1 and 'rank' not in said
    assert sorted(o.name for o in (tmp_path/'model'/'training').glob('*1/process*')) == ['process0.safetensors', 'process1.safetensors']
    test = ['test', 'model', str(root/'squares'), '--workers', '0', '--out']
    told = [run([*how, *test, name], cwd=tmp_path)[-200:].splitlines()[-4:] for how,name in ((two, 'two'), (vidbook, 'one'))]
    assert told[0] == told[1] and told[0][0].startswith('top1')
    assert (tmp_path/'two.csv').read_text() == (tmp_path/'one.csv').read_text()
