"""Folders and patterns: which files they hold, and their names."""

import os
import unicodedata

import pytest

from m2snet_jax.data.patterns import find_files, holds_files, name_of, top_folder
from m2snet_jax.errors import InputError


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def names(where):
    return list(find_files(where).paths)


def test_a_folder_holds_what_is_below_it(tmp_path):
    touch(tmp_path, 'b.png', 'a.JPG', 'p1/a.gif', 'p1/deep/x.y.tif', 'notes.txt', 'c.psd')
    files = find_files(tmp_path)
    assert files.paths == {
        'a': tmp_path / 'a.JPG',
        'b': tmp_path / 'b.png',
        'p1/a': tmp_path / 'p1/a.gif',
        'p1/deep/x.y': tmp_path / 'p1/deep/x.y.tif',
    }
    assert files.unread == {'notes': tmp_path / 'notes.txt', 'c': tmp_path / 'c.psd'}


@pytest.mark.parametrize(
    ('pattern', 'found'),
    [
        ('shots/*_scan.tif', ['01', '02']),
        ('shots/*_scan', ['01', '02', '03']),
        ('shots/*_scan.*', ['01', '02', '03']),
        ('shots/*', ['01_scan', '02_scan', '03_scan', 'scan']),
        ('*/shot.png', ['p1', 'p2']),
        ('p*/shot.png', ['1', '2']),
        ('*/shot*.png', ['p1/_2']),
        ('p*/s*_*.png', ['1/hot/2']),
        ('**/shot.png', ['p1', 'p2', 'p3/deep']),
        ('**/*.png', ['p1/shot', 'p1/shot_2', 'p2/shot', 'p3/deep/shot']),
        ('p3/**', ['deep/shot']),
        ('shots/01_scan.tif', ['01_scan']),
        ('shots', ['01_scan', '02_scan', '03_scan', 'scan']),
    ],
)
def test_what_the_star_is_becomes_the_name(tmp_path, pattern, found):
    touch(tmp_path, 'shots/01_scan.tif', 'shots/02_scan.TIF', 'shots/03_scan.png', 'shots/scan.png', 'p1/shot.png')
    touch(tmp_path, 'p1/shot_2.png', 'p2/shot.png', 'p3/deep/shot.png')
    if pattern.startswith('**'):
        for path in (tmp_path / 'shots').iterdir():
            path.unlink()
    assert names(tmp_path / pattern) == found
    assert holds_files(tmp_path / pattern)


def test_signs_that_other_patterns_use_stand_for_themselves(tmp_path):
    touch(tmp_path, 'benign (1)/a[1].png', 'benign (1)/a1.png', 'x?/b+.png')
    assert names(tmp_path / 'benign (1)/a[*].png') == ['1']
    assert names(tmp_path / 'x?/*+.png') == ['b']


def test_hidden_files_count_below_what_was_named_and_not_above(tmp_path):
    top = touch(tmp_path / '.cache/set', 'a.png', '._a.png', '.ipynb_checkpoints/a-checkpoint.png', 'p/.b/c.png')
    touch(top, '__MACOSX/a.png', '@eaDir/a.png', 'p/b.png')
    assert names(top) == ['a', 'p/b']
    assert names(top / '**/*.png') == ['a', 'p/b']
    assert names(tmp_path / '.cache/*/a.png') == ['set']
    assert not holds_files(top / '.ipynb*/*.png')


def test_links_are_followed_and_bad_ones_named(tmp_path):
    top, store = tmp_path / 'top', touch(tmp_path / 'store', 'a.png', 'p/b.png')
    top.mkdir()
    (top / 'day').symlink_to(store)
    (store / 'p/again').symlink_to(store)
    (top / 'one.png').symlink_to(store / 'a.png')
    (top / 'gone.png').symlink_to('/nowhere/07.png')
    (top / 'self.png').symlink_to('self.png')
    (top / 'gone.txt').symlink_to('/nowhere/07.txt')
    files = find_files(top)
    assert list(files.paths) == ['day/a', 'day/p/b', 'one']
    assert list(files.dangling) == ['gone', 'self']
    (loop,) = files.loops
    assert loop.startswith(f'{top}/day/p/again: is a link to {store}, a folder above it')


def test_names_are_compared_in_one_form_of_unicode(tmp_path):
    composed, decomposed = unicodedata.normalize('NFC', 'é'), unicodedata.normalize('NFD', 'é')
    touch(tmp_path, f'{decomposed}.png')
    assert names(tmp_path) == [composed]
    assert names(tmp_path / f'{composed}*') == []
    touch(tmp_path, f'{decomposed}1.png')
    assert names(tmp_path / f'{composed}*') == ['1']
    touch(tmp_path, f'{composed}.png')
    (line,) = find_files(tmp_path).duplicates
    assert 'has the same name' in line


def test_names_that_are_no_utf_8_are_valid_text(tmp_path):
    try:
        touch(tmp_path, os.fsdecode(b'caf\xe9.png'))
    except OSError:
        pytest.skip('this file system takes UTF-8 only')
    assert names(tmp_path) == ['caf%E9']
    name_of(tmp_path).encode()


def test_two_files_of_one_name_are_not_chosen_from(tmp_path):
    touch(tmp_path, 'a.png', 'a.jpg')
    (line,) = find_files(tmp_path).duplicates
    assert line == f'{tmp_path}/a.png: a.jpg has the same name up to the ending; keep one'


@pytest.mark.parametrize('where', ['none', 'none/*.png', '*/none'])
def test_what_is_not_there(tmp_path, where):
    if where == '*/none':
        assert names(tmp_path / where) == []
    else:
        with pytest.raises(InputError, match=r'--maps=.*/none.*: no such folder'):
            find_files(tmp_path / where, flag='maps')
    assert not holds_files(tmp_path / where)


def test_a_file_by_itself(tmp_path):
    touch(tmp_path, '.hidden.png')
    assert names(tmp_path / '.hidden.png') == ['.hidden']


def test_the_folder_before_the_first_star(tmp_path):
    touch(tmp_path, 'a/b.png', 'a*/b.png')
    assert top_folder(tmp_path / 'a/*.png') == tmp_path / 'a'
    assert top_folder(tmp_path / 'a*') == tmp_path / 'a*'
    assert str(top_folder('*.png')) == '.'
