"""Bar charts: valid SVG that shows every value it is given."""

import xml.etree.ElementTree as ET

import pytest

from treille.bench.bars import ABOVE, BELOW, COLOURS, NAMES, WIDE, bars, grouped, save
from treille.errors import ParameterError


def elements(svg, kind):
    """The elements of a kind."""
    return ET.fromstring(svg).findall(f"{{http://www.w3.org/2000/svg}}{kind}")


def texts(svg):
    """All that is written."""
    return [element.text for element in elements(svg, "text")]


def drawn(svg):
    """Fill and width of the bars; the first rectangle is the background."""
    return [(rect.get("fill"), float(rect.get("width"))) for rect in elements(svg, "rect")[1:]]


def test_bars_are_sorted_and_coloured_by_the_reference():
    """Longest first; those below the reference line have another colour; lengths are proportional to values."""
    svg = bars("ratios", {"code": [("slow", 0.5), ("fast", 2.0)]}, reference=1.0)
    assert texts(svg) == ["ratios", "code", "fast", "2.00", "slow", "0.50"]
    (fast, longer), (slow, shorter) = drawn(svg)
    assert (fast, slow) == (ABOVE, BELOW)
    assert longer == pytest.approx(4 * shorter, rel=0.01)
    assert len(elements(svg, "path")) == 1


def test_panels_stand_side_by_side_without_overlap():
    """Two columns; a panel goes to the shorter one."""
    svg = bars("t", {"long": [("a", 1.0)] * 9, "short": [("a", 1.0)], "next": [("a", 1.0)]}, reference=1.0)
    place = {t.text: (float(t.get("x")), float(t.get("y"))) for t in elements(svg, "text")}
    assert place["long"][0] < place["short"][0] == place["next"][0]
    assert place["short"][1] < place["next"][1]


def test_names_are_escaped():
    """A name may hold what SVG uses for itself."""
    assert "a<b & c" in texts(bars("a<b & c", {}, reference=1.0))
    assert "a<b & c" in texts(grouped("t", {"g": {"a<b & c": (0.5, 0.4, 0.6)}}))


def test_no_bars_is_a_picture_too():
    """A figure without rows is valid, and so is one of zeros."""
    assert texts(bars("none", {}, reference=1.0)) == ["none"]
    assert "0.00" in texts(bars("zero", {"p": [("a", 0.0)]}, reference=0.0))
    assert texts(grouped("none", {}))[0] == "none"


def test_groups_show_shares_and_intervals():
    """A bar ends at its share, a whisker at the ends of its interval, on an axis from 0 to 100 %."""
    svg = grouped("accuracy", {"lists": {"greedy": (0.5, 0.25, 0.75)}})
    assert texts(svg) == ["accuracy", "greedy", "0 %", "25 %", "50 %", "75 %", "100 %", "lists", "50 %"]
    _, bar = drawn(svg)  # the first is the legend's
    assert bar == (COLOURS[0], WIDE / 2)
    whisker = elements(svg, "path")[-1].get("d")
    assert whisker.startswith(f"M{NAMES + WIDE / 4:.1f} ")
    assert f"H{NAMES + 3 * WIDE / 4:.1f}M" in whisker


@pytest.mark.parametrize("count", [3, 30])
def test_a_label_has_one_colour_in_all_groups(count):
    """Colours tell labels apart, also where a group lacks some of them, and however many there are."""
    shares = {f"label {i}": (0.5, 0.4, 0.6) for i in range(count)}
    first, second, *_ = shares
    fills = [fill for fill, _ in drawn(grouped("t", {"all": shares, "one": {second: shares[second]}}))]
    legend, bars_of_all, bar_of_one = fills[:count], fills[count : 2 * count], fills[-1]
    assert len(set(legend)) == count
    assert legend == bars_of_all
    assert bar_of_one == dict(zip(shares, legend, strict=True))[second] != dict(zip(shares, legend, strict=True))[first]


def test_a_picture_is_written_or_refused(tmp_path):
    """Folders are made; what stands in the way is named."""
    save(tmp_path / "new/picture.svg", "<svg/>")
    assert (tmp_path / "new/picture.svg").read_text() == "<svg/>"
    with pytest.raises(ParameterError, match=r"--picture=.*new: cannot be written \(Is a directory\); give another"):
        save(tmp_path / "new", "<svg/>")
