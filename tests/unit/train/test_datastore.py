"""`treille train datastore`: what is written, from which texts, and what is refused."""

import subprocess
import sys

import numpy as np
import pytest

import treille
from treille.drafters._datastore import SEPARATOR, Header
from treille.errors import ParameterError
from treille.train.datastore import build_datastore, build_from_files, read_documents


def tokens_of(directory) -> list[list[int]]:
    """The tokens of every chunk."""
    return [np.load(file).tolist() for file in sorted(directory.glob("tokens-*.npy"))]


def test_documents_stay_whole_and_apart(tmp_path):
    """A separator after each; chunks end between documents; empty ones are left out; the header counts."""
    out = tmp_path / "a/store"
    made = build_datastore([[1, 2], [], [3], [4, 5, 6], [7]], out, vocab_size=9, chunk_tokens=3)
    assert tokens_of(out) == [[1, 2, SEPARATOR, 3, SEPARATOR], [4, 5, 6, SEPARATOR], [7, SEPARATOR]]
    assert (made.documents, made.tokens, made.chunks, made.probe) == (4, 7, 3, (1, 2))
    assert Header.read(out) == made


def test_equal_input_gives_equal_bytes(tmp_path):
    """Nothing depends on the order of a hash table or on the clock."""
    for name in ("a", "b"):
        build_datastore([[1, 2, 1, 2], [2, 1]], tmp_path / name, vocab_size=3)
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_documents_are_read_from_files(tmp_path):
    """A file is a document; a .jsonl file has one per line."""
    (tmp_path / "a.txt").write_text("one\ntwo", encoding="utf-8")
    (tmp_path / "b.jsonl").write_text('"three"\n\n{"text": "four", "id": 4}\n', encoding="utf-8")
    assert list(read_documents([tmp_path / "a.txt", tmp_path / "b.jsonl"])) == ["one\ntwo", "three", "four"]


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("none.txt", None, "cannot be read"),
        ("a.txt", b"\xff", "not UTF-8"),
        ("a.jsonl", b"{", "line 1: is not JSON"),
        ("a.jsonl", b'"a"\n{"body": 1}', "line 2"),
    ],
)
def test_files_that_cannot_be_used_are_named(tmp_path, name, content, part):
    """With the line, where there is one."""
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ParameterError, match=part):
        list(read_documents([tmp_path / name]))


def test_refusals(tmp_path):
    """An id beyond the vocabulary, no token at all, a directory that holds something; half a store does not open."""
    for documents, part in (([[1, 9]], "token id 9"), ([[-1]], "token id -1"), ([[]], "there is none")):
        with pytest.raises(ParameterError, match=part):
            build_datastore(documents, tmp_path / "store", vocab_size=9)
    with pytest.raises(ParameterError, match="chunk_tokens"):
        build_datastore([[1]], tmp_path / "store", vocab_size=9, chunk_tokens=0)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    for out in (tmp_path / "full", tmp_path / "full/file"):
        with pytest.raises(ParameterError, match="not empty"):
            build_datastore([[1]], out, vocab_size=9)
    with pytest.raises(ParameterError, match="token id 9"):  # in the second chunk
        build_datastore([[1], [9]], tmp_path / "half", vocab_size=9, chunk_tokens=1)
    with pytest.raises(ParameterError, match="is none"):
        Header.read(tmp_path / "half")


def test_the_command_builds_what_the_drafters_search(tmp_path):
    """From files, with the bundled model's tokenizer; the text is the plain text, from fewer steps."""
    code = "def total(values):\n    result = 0\n    for value in values:\n        result += value\n    return result\n"
    (tmp_path / "code.py").write_text(code, encoding="utf-8")
    arguments = ["train", "datastore", "code.py", "--out", "store"]
    command = [sys.executable, "-m", "treille", *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("store: 1 documents, ")
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)
    assert "not empty" in again.stderr
    lm = treille.load()
    prompt = code + "\n\ndef total(values):\n    result = 0\n"
    plain = lm.generate(prompt, max_new_tokens=24, eos_token_id=[])
    draft = f"retrieval:datastore={tmp_path / 'store'},shortest=1"
    drafted = lm.generate(prompt, max_new_tokens=24, eos_token_id=[], draft=draft, governor=False)
    assert drafted.tokens == plain.tokens
    assert drafted.stats.drafts.drafted


def test_a_checkpoint_without_a_tokenizer_is_refused(tmp_path):
    """Texts need one."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}")
    with pytest.raises(ParameterError, match=r"tokenizer\.json"):
        build_from_files([], tmp_path / "store", str(tmp_path / "model"))
