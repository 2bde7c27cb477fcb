"""HMDB51: 6,766 clips of 51 actions from films and the web, three official splits

Download by hand, from https://serre-lab.clps.brown.edu/resource/hmdb-a-large-human-motion-database/ :
the train/test splits (a rar) and the videos (a rar that holds a rar for each class). Unpack them and give the folders.

    unrar x test_train_splits.rar
    mkdir hmdb51_org && cd hmdb51_org && unrar x ../hmdb51_org.rar && for o in *.rar; do unrar x "$o"; done && cd ..
    python data_recipes/hmdb51.py testTrainMulti_7030_splits hmdb51_org --dest data/hmdb51
"""
import re, sys
from functools import partial
from pathlib import Path

import pandas as pd

from vidbook.data.recipe import check_count, join_sources, run_recipe, write_dataset
from vidbook.data.table import TableError, read_text

published = dict(classes=51, videos=6766, train=(3570, 3570, 3570), valid=(1530, 1530, 1530))
splits = 1, 2, 3
meaning = {'0': None, '1': 'train', '2': 'valid'}


def read_split(file, label):
    "What an official list says of the videos of a class: `name.avi 1` to train with, 2 to test, 0 neither"
    found = {}
    for i, line in enumerate(read_text(file).split('\n'), 1):
        if not line.strip(): continue
        name, _, number = line.strip().rpartition(' ')
        if number not in meaning or not name or '/' in name:
            raise TableError(f'{file}, line {i}: {line.strip()!r} is not a file name and 0, 1 or 2; download the annotations again.')
        found[f'{label}/{name.strip()}'] = meaning[number]
    return found


def class_files(folder):
    "The lists as (class, split): file; a class may have underscores in its name"
    found = {}
    for file in sorted(Path(folder).rglob('*_test_split[123].txt')):
        label, number = re.fullmatch(r'(.+)_test_split(\d)\.txt', file.name).groups()
        found[label, int(number)] = file
    if not found: raise TableError(f'{folder} holds no lists such as brush_hair_test_split1.txt; is this the right archive or folder?')
    return found


def source_of(name):
    "Clips of one film begin alike: April_09_brush_hair_u_nm_np1_ba_goo_0.avi -> April_09"
    label, file = name.split('/')
    return file.partition(f'_{label}_')[0]


def read_annotations(folder, counts):
    "Table of the official lists, without paths: id, label, source and a column for each split"
    files = class_files(folder)
    vocab = sorted({label for label, _ in files})
    check_count('classes', len(vocab), counts.get('classes'))
    if lacking := [f'{label}_test_split{k}.txt' for label in vocab for k in splits if (label, k) not in files]:
        raise TableError(f'{folder} lacks {lacking[0]}; download the annotations again.')
    columns = {f'split{k}': {o: s for label in vocab for o, s in read_split(files[label, k], label).items()} for k in splits}
    for k in splits:
        for what, kind in (('training', 'train'), ('test', 'valid')):
            n = list(columns[f'split{k}'].values()).count(kind)
            check_count(f'{what} videos in split {k}', n, counts[kind][k-1] if kind in counts else None)
    names = sorted(set().union(*columns.values()))
    if torn := [o for o in names if any(o not in c for c in columns.values())]:
        raise TableError(f'{torn[0]} is not in all three splits; download the annotations again.')
    check_count('listed videos', len(names), counts.get('videos'))
    df = pd.DataFrame(dict(id=names, label=[o.split('/')[0] for o in names], source=[source_of(o) for o in names])
                      | {k: [c[o] for o in names] for k, c in columns.items()})
    df.attrs['vocab'] = vocab
    return df


def hmdb51(
    annotations:str, # The official splits: the folder with the lists, or a zip or tar of it
    videos:str, # The videos: the folder with a folder for each class, or a zip or tar of it
    dest:str='data/hmdb51', # Folder to be filled
    split:int=1, # The official split that the column `split` copies: 1, 2 or 3
    annotations_sha256:str=None, # Of the annotation archive, if you know it
    videos_sha256:str=None, # Of the video archive, if you know it
):
    "Prepare HMDB51 from local files: `hmdb51.csv`, and the lists of all three official splits"
    return prepare(annotations, videos, dest, split, annotations_sha256, videos_sha256, published)


def prepare(annotations, videos, dest, split=1, annotations_sha256=None, videos_sha256=None, counts=published):
    "The same for any data set in HMDB51's layout; `counts` are checked"
    if split not in splits: raise TableError(f'there is no split {split}; choose 1, 2 or 3.')
    df = join_sources(annotations, videos, dest, partial(read_annotations, counts=counts), (annotations_sha256, videos_sha256))
    lists = df[['id', 'video', 'label', 'source', *(f'split{k}' for k in splits)]]
    write_dataset(lists, dest, 'hmdb51', {f'_split_{k}': f'split{k}' for k in splits}, listed='id')
    used = lists[lists[f'split{split}'].notna()].assign(split=lists[f'split{split}'])     # 1,666 clips are in none of a split's lists
    return write_dataset(used, dest, 'hmdb51', {}, listed='id')


if __name__ == '__main__': sys.exit(run_recipe(hmdb51))
