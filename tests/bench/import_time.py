"""CPU seconds of `import vidbook.all` beside `import fastai.vision.all`: `python tests/bench/import_time.py [repeats]`

Fresh interpreters in turn, minima of user + system time; the bound is 1.0 s more than fastai alone."""
import json, resource, subprocess, sys

both = ('import fastai.vision.all', 'import vidbook.all')


def cpu_seconds(statement):
    "User and system seconds of a fresh interpreter that runs `statement`"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, '-c', statement], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime+after.ru_stime-before.ru_utime-before.ru_stime


def main(repeats=5):
    for statement in both: cpu_seconds(statement)   # warm the page cache
    runs = [[cpu_seconds(statement) for statement in both] for _ in range(repeats)]
    fastai, vidbook = (min(r) for r in zip(*runs))
    print(json.dumps(dict(fastai=round(fastai, 2), vidbook=round(vidbook, 2), difference=round(vidbook-fastai, 2), bound=1.0)))
    return vidbook-fastai <= 1.0


if __name__ == '__main__': sys.exit(not main(*map(int, sys.argv[1:])))
