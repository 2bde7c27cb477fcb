"""UCF101: 13,320 clips of 101 actions, three official splits

Download by hand, from https://www.crcv.ucf.edu/research/data-sets/ucf101/ :
the train/test splits for action recognition (a zip) and the videos (a rar; unpack it and give the folder).

    unrar x UCF101.rar                                     # or: 7z x UCF101.rar
    python data_recipes/ucf101.py UCF101TrainTestSplits-RecognitionTask.zip UCF-101 --dest data/ucf101
"""
import re, sys
from functools import partial
from pathlib import Path

import pandas as pd

from vidbook.data.recipe import check_count, find_file, join_sources, run_recipe, write_dataset
from vidbook.data.table import TableError, read_text, read_vocab

published = dict(classes=101, videos=13320, train=(9537, 9586, 9624))
splits = 1, 2, 3


def read_list(file, vocab):
    "The names in an official list: `class/file`, in the training lists with the class's number from 1"
    names = []
    for i, line in enumerate(read_text(file).split('\n'), 1):
        if not line.strip(): continue
        name, *number = line.split()
        label = name.split('/')[0]
        if name.count('/') != 1 or label not in vocab:
            raise TableError(f'{file}, line {i}: {name} is not in the folder of a class of classInd.txt; download the annotations again.')
        if number and number != [str(vocab.index(label)+1)]:
            raise TableError(f'{file}, line {i}: {label} has the number {number[0]} but is class {vocab.index(label)+1} in classInd.txt; '
                             'download the annotations again.')
        names.append(name)
    return names


def source_of(name):
    "Clips of one group show the same person or scene: v_Archery_g08_c01.avi -> g08"
    found = re.search(r'_(g\d+)_c\d+\.', name)
    if not found: raise TableError(f'{name}: the name of a clip should end in _gNN_cNN; download the annotations again.')
    return found[1]


def read_annotations(folder, counts):
    "Table of the official lists, without paths: id, label, source and a column for each split"
    vocab = read_vocab(find_file(folder, 'classInd.txt'))
    check_count('classes', len(vocab), counts.get('classes'))
    columns = {}
    for k in splits:
        train, valid = (read_list(find_file(folder, f'{kind}list{k:02}.txt'), vocab) for kind in ('train', 'test'))
        if twice := set(train) & set(valid): raise TableError(f'split {k}: {min(twice)} is in both lists; download the annotations again.')
        check_count(f'training videos in split {k}', len(train), counts['train'][k-1] if 'train' in counts else None)
        columns[f'split{k}'] = dict.fromkeys(train, 'train') | dict.fromkeys(valid, 'valid')
    df = pd.DataFrame(columns)
    torn = df.index[df.isna().any(axis=1)]
    if len(torn): raise TableError(f'{torn[0]} is not in all three splits; download the annotations again.')
    check_count('listed videos', len(df), counts.get('videos'))
    df = df.rename_axis('id').reset_index().sort_values('id', ignore_index=True)
    df = df.assign(label=[o.split('/')[0] for o in df['id']], source=[source_of(o) for o in df['id']])
    df.attrs['vocab'] = vocab
    return df


def ucf101(
    annotations:str, # The official train/test splits: zip or tar, or the folder with classInd.txt and the lists
    videos:str, # The videos: zip or tar, or the folder that a rar was unpacked to
    dest:str='data/ucf101', # Folder to be filled
    split:int=1, # The official split that the column `split` copies: 1, 2 or 3
    annotations_sha256:str=None, # Of the annotation archive, if you know it
    videos_sha256:str=None, # Of the video archive, if you know it
):
    "Prepare UCF101 from local archives: `ucf101.csv`, and the lists of all three official splits"
    return prepare(annotations, videos, dest, split, annotations_sha256, videos_sha256, published)


def prepare(annotations, videos, dest, split=1, annotations_sha256=None, videos_sha256=None, counts=published):
    "The same for any data set in UCF101's layout; `counts` are checked"
    if split not in splits: raise TableError(f'there is no split {split}; choose 1, 2 or 3.')
    df = join_sources(annotations, videos, dest, partial(read_annotations, counts=counts), (annotations_sha256, videos_sha256))
    df = df.assign(split=df[f'split{split}'])
    df = df[['id', 'video', 'label', 'split', 'source', *(f'split{k}' for k in splits)]]
    return write_dataset(df, dest, 'ucf101', {f'_split_{k}': f'split{k}' for k in splits}, listed='id')


if __name__ == '__main__': sys.exit(run_recipe(ucf101))
