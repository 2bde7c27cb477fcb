"""How fast networks are on a CPU and how much memory they take: `python tests/bench/networks.py [NAME ...] [--threads 2] [--bs 1] [--repeats 5]`

Each is held against the same network of torchvision, PyTorchVideo or transformers, on equal inputs and with equal weights, which come here through vidbook's key tables
(without names: `ten`; all that there are: `all`). First the outputs are compared, and the gradients that reach the clips, in double precision, as maxima of nearly equal values
change places by rounding, and in evaluation, as batch norms over few clips enlarge what rounding leaves: if they differ, nothing is timed.
Then both take turns; the figures are medians of a forward pass and of a training step (forward, loss, backward, SGD). With one thread it is CPU time, otherwise wall time: run it on an idle machine.
Memory is the peak above what stands there once the network is built, the median of three processes of its own for each side, in which every tensor gets pages
of its own: without that, the holes of glibc's heap count, too, and X3D-S takes anything from 373 to 467 MB, whoever has built it, where 345 to 351 are used. Libraries that are not installed are named and left out:
`pip install transformers`, `pip install --no-deps pytorchvideo fvcore iopath && pip install yacs termcolor tabulate portalocker parameterized`."""
import argparse, gc, json, os, subprocess, sys, warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from time import perf_counter, process_time

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))
from networks import found, weights

from vidbook.models.slowfast import slow_frames
from vidbook.pretrained import load_weights

floor, goal, tolerance = .9, 1., 1e-4   # transformers computes the angles of its positions in single precision: 2e-5


# ---- both sides ------------------------------------------------------------------------------------------------------------
def from_torchvision(name, **kw): return getattr(import_module('torchvision.models.video'), name)(weights=None, **kw)


def from_pytorchvideo(name, **kw): return getattr(import_module('pytorchvideo.models.hub'), name)(pretrained=False, **kw)


def from_transformers(name, **kw):
    library = import_module('transformers')
    return getattr(library, f'{name}ForVideoClassification')(getattr(library, f'{name}Config')(num_labels=400, layer_norm_eps=1e-6, **kw))


def as_it_is(x): return x


def in_pathways(x): return [x[:, :, slow_frames(x.shape[2], 4, spread=True)], x]


def frames_first(x): return x.transpose(1, 2).contiguous()


@dataclass(frozen=True)
class Twins:
    "A network of another library and the file of its weights, by which networks.py knows its twin"
    make: Callable                                                          # Makes the other network
    file: str                                                               # Its name in `networks.weights`
    shape: tuple                                                            # Of a clip
    feed: Callable = as_it_is                                               # Makes of a batch of clips what the other one takes

    @property
    def library(self): return self.make.func.__name__.removeprefix('from_')

    def ours(self): return found[weights[self.file].arch](**weights[self.file].kw)


def torchvision(name, shape): return {name: Twins(partial(from_torchvision, name), f'torchvision__{name}', shape)}


def pytorchvideo(name, shape, feed=as_it_is, **kw):
    return {name: Twins(partial(from_pytorchvideo, name, **kw), f'pytorchvideo__{name}', shape, feed)}


ten = {
    **torchvision('r2plus1d_18', (3, 16, 112, 112)),
    **torchvision('mvit_v2_s', (3, 16, 224, 224)),
    **torchvision('swin3d_t', (3, 16, 224, 224)),
    **pytorchvideo('slow_r50', (3, 8, 224, 224)),
    **pytorchvideo('slowfast_r50', (3, 32, 224, 224), in_pathways),
    **pytorchvideo('x3d_s', (3, 13, 160, 160), head_activation=None),      # without the norm of the first shortcut, which does nothing in evaluation
    **pytorchvideo('i3d_r50', (3, 8, 224, 224)),
    **pytorchvideo('csn_r101', (3, 32, 224, 224)),
    'videomae_b': Twins(partial(from_transformers, 'VideoMAE'), 'hf__videomae_base_finetuned', (3, 16, 224, 224), frames_first),
    'timesformer': Twins(partial(from_transformers, 'Timesformer'), 'hf__timesformer_base_divst', (3, 8, 224, 224), frames_first),
}
twins = {
    **ten,
    **torchvision('r3d_18', (3, 16, 112, 112)),
    **torchvision('mc3_18', (3, 16, 112, 112)),
    **torchvision('mvit_v1_b', (3, 16, 224, 224)),
    **torchvision('swin3d_s', (3, 16, 224, 224)),
    **pytorchvideo('c2d_r50', (3, 8, 224, 224)),
    **pytorchvideo('x3d_m', (3, 16, 224, 224), head_activation=None),
}


def without_chance(net):
    "Every share that is dropped in training is none: both sides compute the same"
    for m in net.modules():
        for name in ('p', 'drop_prob', 'dropout_rate'):
            if isinstance(getattr(m, name, None), float): setattr(m, name, 0.)
    return net


@torch.no_grad()
def as_if_trained(net):
    "Norms are no identities, and nothing is zero"
    for name, value in net.state_dict().items():
        if not value.is_floating_point(): continue
        if name.endswith('running_var'): value.uniform_(.8, 1.2)
        elif value.ndim == 1 and name.endswith('weight'): value.uniform_(.4, .6)
        elif value.ndim == 1 or not value.any(): value.normal_(std=.02)
    return net


def logits(net, x):
    "What either side gives; PyTorchVideo writes into the list that it is given"
    out = net([*x] if isinstance(x, list) else x)
    return getattr(out, 'logits', out)


# ---- what is measured ------------------------------------------------------------------------------------------------------
@torch.no_grad()
def forward(net, x): return logits(net, x)


def gradient(net, feed, x, y):
    "Of the loss, at the clips"
    x = x.clone().requires_grad_()
    return torch.autograd.grad(F.cross_entropy(logits(net, feed(x)), y), x)[0]


class Training:
    "`step()` is one training step of `net` on a batch"
    def __init__(self, net, x, y):
        self.net, self.x, self.y = net, x, y
        self.optimizer = torch.optim.SGD(net.parameters(), lr=1e-5, momentum=.9)

    def step(self):
        loss = F.cross_entropy(logits(self.net, self.x), self.y)
        loss.backward()
        self.optimizer.step(); self.optimizer.zero_grad()


def batch(twin, bs):
    "Clips as either side takes them, and classes"
    torch.manual_seed(0)
    x = torch.randn(bs, *twin.shape)
    return twin.feed(x), x, torch.randint(0, 400, (bs,))


def clock(): return process_time() if torch.get_num_threads() == 1 else perf_counter()


def seconds(function):
    start = clock(); function()
    return clock()-start


def take_turns(repeats, *functions):
    "Median and least seconds of a call of each; who is first changes from round to round"
    times = [[] for _ in functions]
    for i in range(repeats):
        for k in range(len(functions))[::1-2*(i % 2)]: times[k].append(seconds(functions[k]))
    return [dict(median=median(o), least=min(o)) for o in times]


def apart(what, theirs, ours):
    "Largest difference, as a share of the largest value; an end to it all if they are not the same"
    gap = ((theirs-ours).abs().max()/theirs.abs().max()).item()
    if not gap < tolerance: sys.exit(f'{what} differ by {gap:.2g} of the largest: these are not the same network, nothing is timed')
    return gap


def differences(theirs, ours, feed, x, y):
    "Of outputs and of gradients, in double precision"
    nets, x = [net.eval().double() for net in (theirs, ours)], x.double()
    made = dict(difference=apart('outputs', forward(theirs, feed(x)), forward(ours, x)),
                gradient_difference=apart('gradients', gradient(theirs, feed, x, y), gradient(ours, as_it_is, x, y)))
    for net in nets: net.float()
    return made


def times(twin, args):
    "Compare, then time, both sides in this process"
    theirs, ours = without_chance(as_if_trained(twin.make())), without_chance(twin.ours())
    load_weights(ours, theirs.state_dict())
    theirs_x, x, y = batch(twin, args.bs)
    made = differences(theirs, ours, twin.feed, x, y)
    made['forward'] = take_turns(args.repeats, *(partial(forward, net, clip) for net, clip in ((theirs, theirs_x), (ours, x))))
    runs = [Training(net.train(), clip, y) for net, clip in ((theirs, theirs_x), (ours, x))]
    for run in runs: run.step()                                             # warms up
    return made | dict(training=take_turns(args.repeats, *(run.step for run in runs)))


def status(name):
    "A figure of this process, in MB"
    return int(next(o for o in Path('/proc/self/status').read_text().splitlines() if o.startswith(f'{name}:')).split()[1])/1024


def memory(twin, args):
    "Peaks of a forward pass and of training steps above what stands there before, for one side alone"
    side = args.part.removeprefix('memory_')
    net, (theirs_x, x, y) = without_chance((twin.make if side == 'theirs' else twin.ours)()), batch(twin, args.bs)
    x, made = theirs_x if side == 'theirs' else x, {}
    training = Training(net, x, y)
    for what, run in (('forward', lambda: forward(net.eval(), x)), ('training', lambda: (net.train(), training.step(), training.step()))):
        gc.collect()
        Path('/proc/self/clear_refs').write_text('5')                       # the peak begins anew
        before = status('VmRSS'); run()
        made[what] = status('VmHWM')-before
    return made


# ---- the table -------------------------------------------------------------------------------------------------------------
def alone(name, part, args):
    "What a process of its own measures"
    options = [f'--{o}={getattr(args, o)}' for o in ('threads', 'bs', 'repeats')]
    settings = {f'{o}_NUM_THREADS': str(args.threads) for o in ('OMP', 'MKL')}
    if part != 'times': settings |= dict(MALLOC_MMAP_THRESHOLD_='65536', MALLOC_TRIM_THRESHOLD_='0')         # tensors are mapped, and given back at once
    done = subprocess.run([sys.executable, '-W', 'ignore', __file__, name, f'--part={part}', *options], capture_output=True, text=True, env=os.environ | settings)
    if done.returncode: raise RuntimeError(f'{name}: {(done.stderr.strip() or "ended without a word").splitlines()[-1]}')
    return json.loads(done.stdout.splitlines()[-1])


def peaks(name, side, args):
    "Medians of three processes: where a process puts its tensors moves a peak by some percent"
    made = [alone(name, f'memory_{side}', args) for _ in range(3)]
    return {what: median(o[what] for o in made) for what in made[0]}


def row(name, what, theirs, ours, unit):
    "Print one line of the table; gives the ratio"
    ratio = theirs/ours
    print(f'{name:14} {what:18} {theirs:10.2f} {unit:2} {ours:10.2f} {unit:2}  x{ratio:<6.2f}' + ('' if ratio >= floor else ' BELOW THE FLOOR'), flush=True)
    return ratio


def compare(name, args):
    "All lines of one network: what -> ratio"
    made, ratios = alone(name, 'times', args), {}
    print(f'{name:14} {twins[name].library}, outputs differ by {made["difference"]:.1g} of the largest, gradients by {made["gradient_difference"]:.1g}')
    for what in ('forward', 'training'):
        theirs, ours = (o['least' if args.least else 'median'] for o in made[what])
        ratios[what] = row(name, what, theirs*1000, ours*1000, 'ms')
    theirs, ours = ({} if args.times_only else peaks(name, side, args) for side in ('theirs', 'ours'))
    return ratios | {f'{what}, memory': row(name, f'{what}, memory', theirs[what], ours[what], 'MB') for what in theirs}


def tried(name, args):
    "The ratios, or None and a line that says why there are none"
    try: return compare(name, args)
    except RuntimeError as e: print(e, flush=True)


def there(names):
    "Those of the networks whose library is installed; the others are named"
    missing = sorted({twins[n].library for n in names if not find_spec(twins[n].library)})
    for library in missing: print(f'{library} is not installed, left out: {", ".join(n for n in names if twins[n].library == library)}')
    return [n for n in names if twins[n].library not in missing]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('names', nargs='*', metavar='NAME', help=f'{", ".join(twins)}; ten (as it is without names), all')
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--bs', type=int, default=1, help='clips of a batch')
    parser.add_argument('--repeats', type=int, default=5, help='calls of each side')
    parser.add_argument('--least', action='store_true', help='least times, not medians: for a machine that is not idle')
    parser.add_argument('--times-only', action='store_true', help='no memory')
    parser.add_argument('--part', choices=('times', 'memory_theirs', 'memory_ours'), help=argparse.SUPPRESS)
    args = parser.parse_args()
    names = [*dict.fromkeys(n for o in args.names or ['ten'] for n in dict(ten=ten, all=twins).get(o, [o]))]
    if unknown := [n for n in names if n not in twins]: parser.error(f'{", ".join(unknown)}: there are {", ".join(twins)}')
    torch.set_num_threads(args.threads)
    if args.part: return print(json.dumps((times if args.part == 'times' else memory)(twins[names[0]], args)))
    print(f'{"network":14} {"what":18} {"theirs":>13} {"vidbook":>13}  theirs/vidbook; {args.bs} clips, {args.threads} threads, floor {floor:g}, goal {goal:g} in the median')
    ratios = [tried(name, args) for name in there(names)]
    failed, ratios = ratios.count(None), [o for o in ratios if o]
    for what in ratios[0] if ratios else (): print(f'{what:33} median x{median(o[what] for o in ratios):.2f}, least x{min(o[what] for o in ratios):.2f}')
    return failed+sum(r < floor for o in ratios for r in o.values())


if __name__ == '__main__':
    warnings.simplefilter('ignore')
    sys.exit(main())
