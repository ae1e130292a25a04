"""The drawn tree and the page."""

import json
import re
from html.parser import HTMLParser

import pytest

from treille.errors import ParameterError
from treille.trace import Event, Trace, TracedNode
from treille.trace.draw import chains


def trace(parents, texts, candidates, dropped=(), status="finished"):
    """A trace of one-token nodes; node i is computed at step i."""
    nodes = tuple(
        TracedNode(i, parent, (i,), text, None if parent is None else -0.5)
        for i, (parent, text) in enumerate(zip(parents, texts, strict=True))
    )
    last = len(nodes)
    events = (
        Event(0, "prompt", (0,), (0,)),
        *(Event(i, "computed", (i,)) for i in range(last)),
        Event(0, "proposed", (0,), (1, 9), (-0.5, -1.5)),
        *(Event(last, "dropped", (i,)) for i in dropped),
        Event(last, "finished", candidates, values=tuple(-1.0 * c for c in candidates)),
    )
    return Trace("toy()", status, nodes, events, candidates, {1: texts[1], 9: "z"})


SMALL = trace([None, 0, 0, 1, 3, 3], ["once", " a", " b", " c\n", " d", " e"], (4, 5), dropped=(2,))


def test_the_trunk_runs_down_at_the_left_and_branches_hang_from_it():
    """Chains are joined, the best text is the trunk, candidates and dropped branches are marked."""
    lines = [" ".join(line.split()) for line in SMALL.text(60).splitlines()]
    assert lines == [
        "toy(): 6 steps, 6 nodes, finished",
        "┌ once prompt, 1 token",
        "├─ b -0.50 ✗ end",
        "│ a c↵ -1.00",
        "├─ e -0.50 ◆ 2 (-5.00)",
        "└ d -0.50 ◆ 1 (-4.00)",
    ]
    assert str(SMALL) == SMALL.text()


def test_dropped_branches_can_be_left_out():
    """What was dropped is not drawn, and what it separated is joined."""
    assert " b" not in SMALL.text(60, dropped=False)
    assert [len(chain.nodes) for chain in chains(SMALL, dropped=False).below] == [2]


def test_every_node_is_in_exactly_one_chain():
    """Chains partition the tree."""
    seen, work = [], [chains(SMALL)]
    while work:
        chain = work.pop()
        seen += [node.number for node in chain.nodes]
        work += chain.below
    assert sorted(seen) == list(range(6))


def test_a_deep_tree_with_a_fork_at_every_token_is_drawn():
    """Neither the drawing nor the page recurses, and the trunk is not indented: 3,000 forks fit 80 columns."""
    parents, texts = [None], ["start"]
    trunk = 0
    for _ in range(3000):
        parents += [trunk, trunk]
        texts += [" x", " y"]
        trunk = len(parents) - 1
    deep = trace(parents, texts, (trunk,), dropped=[i for i in range(1, trunk) if texts[i] == " x"])
    lines = deep.text(80).splitlines()
    assert len(lines) == 2 + 2 * 3000
    assert max(map(len, lines[1:])) <= 80
    assert len(deep.html()) > 3000


def test_wide_characters_and_control_characters_keep_the_columns():
    """A line is never wider than asked for, whatever the text holds; long kept texts wrap, long dropped ones shrink."""
    from rich.cells import cell_len

    wide = trace([None, 0, 0], ["p" * 200, "漢字" * 60 + "\x07\t\n", "q" * 300], (1,), dropped=(2,))
    lines = wide.text(60).splitlines()
    assert max(map(cell_len, lines)) <= 60
    assert "\\x07⇥↵" in wide.text(60)
    assert sum("q" in line for line in lines) == 1


def test_a_trace_without_texts_shows_token_ids():
    """Without a tokenizer the tree shows ids."""
    bare = trace([None, 0, 1], ["", "", ""], (2,))
    assert "└ 1 2" in bare.text()


def test_too_narrow_is_refused():
    """A width that could not hold the notes names the least one."""
    with pytest.raises(ParameterError, match="at least 40"):
        SMALL.text(20)


class Page(HTMLParser):
    """Collects a page's tags, links and scripts, and checks that the tags nest."""

    VOID = frozenset({"meta", "input"})

    def __init__(self, text):
        super().__init__()
        self.open, self.links, self.scripts = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        """One more open element."""
        self.links += [value for name, value in attrs if name in {"src", "href"}]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        """The innermost element ends."""
        assert self.open.pop() == tag

    def handle_data(self, data):
        """A script's or style's content."""
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)


def test_the_page_is_one_file_with_the_whole_tree():
    """The page nests, refers to nothing outside, and its data name every node, its steps and its offers."""
    page = Page(SMALL.html())
    data = json.loads(page.scripts[0])
    assert page.open == []
    assert page.links == []
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|https?://(?!www\.w3\.org/2000/svg)", SMALL.html())
    assert [node["parent"] for node in data["nodes"]] == [None, 0, 0, 1, 3, 3]
    assert [node["until"] for node in data["nodes"]] == [None, None, 6, None, None, None]
    assert data["nodes"][0]["offers"] == [[1, -0.5], [9, -1.5]]
    assert sorted(n for chain in data["chains"] for n in chain["nodes"]) == list(range(6))
    assert data["candidates"] == [[4, -4.0], [5, -5.0]]


def test_text_cannot_break_out_of_the_page():
    """A token that looks like the end of the script is data."""
    nasty = trace([None, 0], ["</script><b>", "<!--"], (1,))
    page = Page(nasty.html())
    assert json.loads(page.scripts[0])["nodes"][0]["text"] == "</script><b>"
    assert len(page.scripts) == 2


@pytest.mark.parametrize("suffix", [".html", ".json", ".txt"])
def test_save_writes_what_the_ending_says(tmp_path, suffix):
    """`.html` is the page, `.json` the events, `.txt` the drawn tree."""
    file = tmp_path / f"run{suffix}"
    SMALL.save(file)
    written = file.read_text(encoding="utf-8")
    expected = {".html": SMALL.html(), ".json": json.dumps(SMALL.to_dict()), ".txt": SMALL.text() + "\n"}
    assert written == expected[suffix]


@pytest.mark.parametrize("name", ["run.pdf", "run", "no/such/directory/run.html"])
def test_save_refuses_what_it_cannot_write(tmp_path, name):
    """An unknown ending or a missing directory is refused with the name."""
    with pytest.raises(ParameterError, match="trace="):
        SMALL.save(tmp_path / name)
