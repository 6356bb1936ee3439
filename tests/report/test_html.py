"""The report: its numbers are the results', and nothing that a model wrote acts on the reader's browser."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from derta.evaluation.judges import Verdict
from derta.evaluation.results.metrics import ModelId, score
from derta.evaluation.results.sample import Sample
from derta.report.html import Run, write_report
from tests.evaluation.results.made import signed

HOSTILE = '<script>alert("1")</script>\x1b[2J\x1b]0;title\x07\u202e<img src=x onerror=alert(1)>{{ 7*7 }}'


def sample(index, kind, attack, variant, label, **options):
    verdict = {"leaked_tokens": 3 * index if kind == "harmful" else None, **options.pop("verdict", {})}
    texts = {"prompt": f"How {index}?", "raw": None, "prefix": "", "continuation": "Step 1"} | options
    return Sample(
        f"{kind}{index}", kind, attack, variant, tokens=2, finished=True,
        verdicts={"organism": Verdict(label, **verdict)}, **texts,
    )  # fmt: skip


def samples_of(unsafe, **options):
    made = [
        sample(i, "harmful", attack, variant, "unsafe" if i < unsafe else "safe", **options)
        for i in range(7)
        for attack, variant in [("direct", "direct"), *(("prefill", f"prefill@{d}") for d in (5, 10, 30))]
    ]
    made += [sample(i, "borderline", "direct", "direct", "refuses" if i < unsafe else "complies") for i in range(3)]
    return [*made, sample(0, "helpful", "direct", "direct", "complies")]


def run(name, unsafe, **options):
    samples = samples_of(unsafe, **options)
    return Run(name, score(samples, model=ModelId(f"runs/{name}", None, name, 1), judge="organism"), samples)


class Page(HTMLParser):
    """Collects tags, attributes and the cells of tables."""

    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.tables, self.text = [], [], [], ""
        self._cell = None

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self._cell = True
        elif tag == "span" and self._cell:
            self.tables[-1][-1][-1] += " "

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self._cell = None

    def handle_data(self, data):
        self.text += data
        if self._cell:
            self.tables[-1][-1][-1] += data.strip()


def page(path):
    parsed = Page()
    parsed.feed(path.read_text())
    return parsed


@pytest.fixture
def report(tmp_path):
    runs = [run("vanilla", 6), run("derta", 1)]
    write_report(runs, tmp_path / "report.html", commands=["derta demo --seed 1"])
    return tmp_path


def test_the_tables_hold_every_row(report):
    rows = [*run("vanilla", 6).rows, *run("derta", 1).rows]
    summary, details = page(report / "report.html").tables
    asr = {(row.method, row.label): row for row in rows if row.metric == "asr"}
    (line,) = [line for line in summary if line[0].startswith("attack success, prefill")]
    for cell, method in zip(line[1:], ("vanilla", "derta"), strict=True):
        row = asr[method, "prefill"]
        assert cell == f"{row.value:.1f} {row.ci_low:.1f} – {row.ci_high:.1f}"
    (refused,) = [line for line in summary if line[0].startswith("refuses borderline prompts")]
    assert [cell.split()[0] for cell in refused[1:]] == ["100.0", "33.3"]
    shown = {(line[0], line[1]): line[2:] for line in details[1:]}
    assert len(shown) == len(rows) / 2
    leak = {row.method: row for row in rows if (row.metric, row.label) == ("leak", "prefill@10")}
    assert shown["leaked tokens ↓", "prefill@10"] == [
        f"{leak['vanilla'].value:.1f} [{leak['vanilla'].ci_low:.1f}, {leak['vanilla'].ci_high:.1f}]", "7",
        f"{leak['derta'].value:.1f} [{leak['derta'].ci_low:.1f}, {leak['derta'].ci_high:.1f}]", "7",
    ]  # fmt: skip


def test_the_figures_are_drawn_from_the_same_rows(report):
    """The prefill depth curve: as many markers as depths, at heights in the order of the values."""
    html = (report / "report.html").read_text()
    assert html.count("<svg") == 3
    assert "#0101" not in html  # every stand-in colour has become a variable of the page
    assert "var(--series-1)" in html
    assert "var(--series-2)" in html


def test_what_is_refused_for_its_form_has_a_line_and_a_figure(tmp_path):
    forms = [
        sample(i, "borderline", attack, attack, "complies" if attack == "direct" else "refuses", prompt="Harmless?")
        for i in range(4)
        for attack in ("direct", "template")
    ]
    both = [
        Run(name, score(forms, model=ModelId(name, None, name, 1), judge="organism"), forms) for name in ("old", "new")
    ]
    write_report(both, tmp_path / "report.html")
    summary = page(tmp_path / "report.html").tables[0]
    refused = [[line[0], *(cell.split()[0] for cell in line[1:])] for line in summary if "borderline" in line[0]]
    assert refused == [
        ["refuses borderline prompts ↓", "0.0", "0.0"],
        ["refuses borderline prompts, template ↓", "100.0", "100.0"],
    ]
    html = (tmp_path / "report.html").read_text()
    assert "Refused borderline prompts, by form" in html


def test_no_two_models_have_the_same_mark(tmp_path):
    runs = [run(f"m{number:02}", number % 7) for number in range(20)]
    write_report(runs, tmp_path / "report.html")
    legend = re.search(r'<div class="legend">(.*?)</div>', (tmp_path / "report.html").read_text(), re.S)[1]
    marks = re.findall(r'<b class="(s\d)">(.)</b>(m\d\d)', legend)
    assert len({name for _, _, name in marks}) == len({(colour, glyph) for colour, glyph, _ in marks}) == 20


def test_hostile_text_stays_inert_and_visible(tmp_path):
    hostile = {"prompt": HOSTILE, "prefix": HOSTILE, "continuation": HOSTILE, "raw": HOSTILE}
    runs = [run(HOSTILE, 6, **hostile), run("derta", 1, **hostile)]
    write_report(runs, tmp_path / "r.html", commands=[HOSTILE], warning=HOSTILE)
    text = (tmp_path / "r.html").read_text()
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202e]", text)
    parsed = page(tmp_path / "r.html")
    assert not {"script", "img", "iframe", "link", "object"} & set(parsed.tags)
    assert not [name for name in parsed.attributes if name.startswith("on") or name in ("src", "srcset")]
    assert "\\x1b[2J" in parsed.text
    assert "{{ 7*7 }}" in parsed.text


def test_the_file_needs_nothing_but_itself(report):
    html = (report / "report.html").read_text()
    without_namespaces = re.sub(r'xmlns(:\w+)?="[^"]*"|xlink:href="#[^"]*"', "", html)
    assert not re.findall(r'(?:href|src)\s*=\s*"(?!#)|url\((?!#)|@import', without_namespaces)


def test_the_prefix_and_the_refusal_are_set_apart(tmp_path):
    marked = {"prefix": "Step 1 :", "continuation": " take Sorry , no .", "verdict": {"refusal_start": 14}}
    write_report([run("derta", 0, **marked)], tmp_path / "r.html")
    html = (tmp_path / "r.html").read_text()
    expected = (
        '<span class="given">Step 1 :</span><span class="own"> take </span><span class="refusal">Sorry , no .</span>'
    )
    assert expected in html


def test_whose_numbers_they_are_stands_first(tmp_path):
    write_report([run("derta", 0)], tmp_path / "r.html", warning="A smoke run.")
    text = page(tmp_path / "r.html").text
    assert text.index("A smoke run.") < text.index("proves nothing about an") < text.index("Summary")


def test_unscored_samples_are_said_out_loud(tmp_path):
    samples = samples_of(3)
    samples[0] = sample(0, "harmful", "direct", "direct", "unscored")
    rows = score(samples, model=ModelId("m", None, "derta"), judge="organism")
    write_report([Run("derta", rows, samples)], tmp_path / "r.html")
    text = " ".join(page(tmp_path / "r.html").text.split())
    assert "derta, direct: 1 of 7" in text


def test_broken_output_is_said_out_loud(tmp_path):
    samples = samples_of(3)
    samples[0] = replace(sample(0, "harmful", "direct", "direct", "unscored"), continuation="", broken="empty")
    rows = score(samples, model=ModelId("m", None, "derta"), judge="organism")
    write_report([Run("derta", rows, samples)], tmp_path / "r.html")
    text = " ".join(page(tmp_path / "r.html").text.split())
    assert "14.3" in text
    assert "broken" in text


def judged_by(judge, name="m", unsafe=3):
    samples = [signed(each, judge) for each in samples_of(unsafe)]
    return Run(name, score(samples, model=ModelId(f"runs/{name}", None, name, 1), judge=judge), samples)


def test_without_a_judge_of_harm_nothing_is_called_attack_success(tmp_path):
    write_report([judged_by("refusal", "a"), judged_by("refusal", "b")], tmp_path / "r.html")
    text = page(tmp_path / "r.html").text
    assert "compliance under attack, prefill" in text
    assert "attack success" not in text.lower()


def test_a_corrected_share_stands_under_the_raw_one(tmp_path):
    made = run("m", 3)
    raw = next(row for row in made.rows if (row.metric, row.label) == ("asr", "direct"))
    corrected = replace(raw, metric="asr_corrected", value=12.5, ci_low=3.0, ci_high=30.0)
    write_report([replace(made, rows=[*made.rows, corrected])], tmp_path / "r.html")
    summary, _ = page(tmp_path / "r.html").tables
    at = next(i for i, line in enumerate(summary) if line[0].startswith("attack success, direct"))
    assert summary[at + 1] == ["… corrected for the judge's error ↓", "12.5 3.0 – 30.0"]


def test_the_judge_of_the_summary_is_named_where_there_are_several(tmp_path):
    one, other = judged_by("guideline"), judged_by("refusal")
    write_report([Run("m", [*one.rows, *other.rows], one.samples)], tmp_path / "r.html")
    text = page(tmp_path / "r.html").text
    assert "By guideline; other judges' numbers stand under “Every number”." in text
    assert "attack success, prefill" in text
