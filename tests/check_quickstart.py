"""Is what `vidbook quickstart` left behind complete and good? `python tests/check_quickstart.py vidbook-quickstart`

The bounds are those that the first release promises: accuracy on held-out clips, what shuffling costs, the report's size."""
import json, sys
from pathlib import Path


def complaints(dest):
    "What is wrong with the folder `dest`, one sentence each"
    for name in ('report.html', 'predictions.csv', 'model/model.safetensors', 'model/model.json', 'figures.json'):
        if not (dest/name).is_file() or not (dest/name).stat().st_size: yield f'{name} is missing or empty'; return
    if (dest/'report.html').stat().st_size > 8e6: yield 'report.html is over 8 MB'
    if any(word in (dest/'report.html').read_text(encoding='utf-8') for word in ('src="http', 'href="http')): yield 'report.html needs a network'
    rows = (dest/'predictions.csv').read_text(encoding='utf-8').splitlines()
    if len(rows) != 241: yield f'predictions.csv has {len(rows)-1} rows, not one for each of 240 held-out clips'
    figures = json.loads((dest/'figures.json').read_text(encoding='utf-8'))
    print(json.dumps(figures, indent=1))
    if figures['top1'] < 86: yield f"top-1 is {figures['top1']:.1f} %, less than 86 %"
    if figures['top1']-figures['shuffled'] < 20: yield f"shuffled frames cost {figures['top1']-figures['shuffled']:.1f} points only, less than 20"


if __name__ == '__main__':
    wrong = list(complaints(Path(sys.argv[1])))
    for sentence in wrong: print(sentence, file=sys.stderr)
    sys.exit(bool(wrong))
