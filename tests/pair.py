"Two processes of one training, forked from a server that has imported vidbook"
import multiprocessing, os, socket


def _join(rank, port, pipe, work, args):
    "One of them"
    os.environ.update(RANK=str(rank), WORLD_SIZE='2', LOCAL_RANK=str(rank), MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
    work(rank, pipe, *args)


def run_pair(work, *args, patience=60):
    "What `work(rank, pipe, *args)` first sends in each; they may stand still for `patience` seconds"
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(['vidbook.learner.saving', 'vidbook.learner.distributed', 'vidbook.data.mixed'])
    with socket.socket() as s: s.bind(('127.0.0.1', 0)); port = s.getsockname()[1]
    pipes, said = [context.Pipe(duplex=False) for _ in range(2)], []
    both = [context.Process(target=_join, args=(i, port, pipes[i][1], work, args)) for i in range(2)]
    for o in both: o.start()
    for i,(ours, theirs) in enumerate(pipes):
        theirs.close()
        assert ours.poll(patience), f'process {i} stands still'
        said.append(ours.recv())
    for o in both: o.join()
    return said
