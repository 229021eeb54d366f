"""The report of an audit as its reader meets it: opened from disk in a real browser."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from emotest.audit.result import Pair
from emotest.report.audit import html_report
from tests.audit_results import HOSTILE, hostile_pair, hostile_result, pairs, result

if TYPE_CHECKING:  # pytest imports it as a plugin, and has to be the first to do so
    from tests.browser import Open

pytest_plugins = ["tests.browser"]

N_MANY = 5_000


def small() -> list[Pair]:
    """One pair of each kind in two registers and two languages."""
    ask = {"topic": "", "system": None, "base_cut": 0, "tuned_cut": 0, "turns": [("user", "Well?")]}
    return [
        Pair(prompt_id=id, register=register, language=language, base=[base], tuned=[tuned], **ask)
        for id, register, language, base, tuned in (
            ("both", "casual", "en", "Hello 👍", "Hi 🎉"),
            ("gained", "casual", "en", "A zebra", "A zebra 🦓"),
            ("lost", "formal", "de", "Guten Tag 😊", "Guten Tag"),
            ("none", "formal", "en", "Yes", "No"),
        )
    ]  # fmt: skip


def without_plots() -> object:
    """A result that is quick to draw, for tests of the answers."""
    return replace(result(), measures=[], emoji=[], positions=[], probabilities=[],
                   evidence=replace(result().evidence, looks=[]))  # fmt: skip


def page_of(rows: list[Pair]) -> str:
    """A report without plots over these pairs."""
    return html_report(without_plots(), rows)  # type: ignore[arg-type]


def test_the_report_opens_from_disk_without_a_complaint_or_request(opened: Open) -> None:
    """Only the file itself is loaded; plots have a size; the console stays empty."""
    report = opened(html_report(result(), pairs(30)))
    assert report.page.title().startswith("drift: ")
    report.shows("30 of 30 prompts, 1 to 10 shown")
    sizes = report.page.locator("figure svg").evaluate_all("all => all.map(x => x.clientHeight)")
    assert len(sizes) == 5
    assert min(sizes) > 100
    assert report.asked == []
    assert report.complaints == []


def test_answers_are_filtered_by_register_language_and_who_wrote_emoji(opened: Open) -> None:
    """Each filter by itself and together; Clear shows all again."""
    report = opened(page_of(small()))
    page = report.page
    page.get_by_label("Register").select_option(label="casual (2)")
    assert report.ids == ["both", "gained"]
    page.get_by_label("Who wrote emoji").select_option(label="only tuned (1)")
    report.shows("1 of 4 prompts, 1 to 1 shown")
    assert report.ids == ["gained"]
    page.get_by_role("button", name="Clear").click()
    report.shows("4 of 4 prompts, 1 to 4 shown")
    for choice, left in (("both", "both"), ("only base", "lost"), ("neither", "none")):
        page.get_by_label("Who wrote emoji").select_option(label=f"{choice} (1)")
        assert report.ids == [left]
    page.get_by_role("button", name="Clear").click()
    report.shows("4 of 4 prompts, 1 to 4 shown")
    page.get_by_label("Language").select_option(label="de (1)")
    assert report.ids == ["lost"]
    assert report.complaints == []


def test_search_finds_words_and_emoji_in_any_case(opened: Open) -> None:
    """All words must be there; what is nowhere leaves an empty list that says so."""
    report = opened(page_of(small()))
    search = report.page.get_by_label("Search")
    for asked, count in (
        ("ZEBRA", "1 of 4 prompts, 1 to 1 shown"),
        ("zebra guten", "0 of 4 prompts"),
        ("🎉", "1 of 4 prompts, 1 to 1 shown"),
        ("well", "4 of 4 prompts, 1 to 4 shown"),
    ):
        search.fill(asked)
        report.shows(count)


def test_emoji_are_marked_in_answers(opened: Open) -> None:
    """Each whole, and nothing else."""
    report = opened(page_of([replace(small()[0], base=["a 👨‍👩‍👧b"], tuned=["🎉🎉 ❤ 1"])]))
    assert report.page.locator(".side mark").all_inner_texts() == ["👨‍👩‍👧", "🎉", "🎉"]


def test_long_answers_are_folded_and_open_by_keyboard(opened: Open) -> None:
    """The button says how much is hidden, and how many emoji; short answers have none."""
    long = "word " * 300 + "🎉"
    report = opened(page_of([replace(small()[0], base=["short"], tuned=[long])]))
    [button] = report.page.locator("article button").all()
    answer = report.page.locator(".side.tuned .answer")
    low = answer.bounding_box()["height"]
    assert button.inner_text().startswith("Show all: 1,502 characters, 1 emoji")
    assert button.get_attribute("aria-expanded") == "false"
    button.focus()
    report.page.keyboard.press("Enter")
    assert button.get_attribute("aria-expanded") == "true"
    assert answer.bounding_box()["height"] > 1.5 * low
    report.page.keyboard.press("Enter")
    assert answer.bounding_box()["height"] == low


def test_five_thousand_records_are_paged(opened: Open) -> None:
    """The page holds a few at a time, however many there are; every page can be reached."""
    many = pairs(N_MANY - 1)
    many.append(replace(many[-1], prompt_id="needle", tuned=["a quokka"]))
    report = opened(page_of(many))
    page = report.page
    report.shows("5,000 of 5,000 prompts, 1 to 10 shown")
    assert len(report.ids) == 10
    page.get_by_role("button", name="Next").click()
    report.shows("5,000 of 5,000 prompts, 11 to 20 shown")
    assert report.ids[0].endswith("0010")
    page.get_by_label("Per page").select_option("100")
    report.shows("5,000 of 5,000 prompts, 1 to 100 shown")
    page.get_by_label("Page", exact=True).fill("50")
    page.keyboard.press("Tab")
    report.shows("5,000 of 5,000 prompts, 4,901 to 5,000 shown")
    assert report.ids[-1] == "needle"
    assert page.get_by_role("button", name="Next").is_disabled()
    page.get_by_label("Page", exact=True).fill("9999")
    page.keyboard.press("Tab")
    report.shows("5,000 of 5,000 prompts, 4,901 to 5,000 shown")
    page.get_by_label("Search").fill("quokka")
    report.shows("1 of 5,000 prompts, 1 to 1 shown")
    assert report.complaints == []


def test_hostile_answers_act_in_no_way(opened: Open) -> None:
    """Shown as they are: no script runs, no dialog, no request, no element of theirs."""
    report = opened(html_report(hostile_result(), [hostile_pair()]))
    page = report.page
    assert page.title() != "owned"
    assert page.locator("img").count() == 0
    assert "<img src=x onerror=alert(1)>" in page.locator(".side.tuned .answer").inner_text()
    assert "⟨U+202E⟩txt.exe" in page.locator(".side.tuned .answer").inner_text()
    assert report.asked == []
    assert report.complaints == []


def test_the_policy_of_the_page_stops_what_escaping_might_miss(opened: Open) -> None:
    """The second wall: a script and a picture planted in the file do nothing but complain."""
    planted = "<script>document.title='owned'</script><img src='http://192.0.2.1/x.png'>"
    report = opened(page_of(small()).replace("<footer>", f"{planted}<footer>"))
    report.shows("4 of 4 prompts, 1 to 4 shown")
    assert report.page.title() != "owned"
    assert len([c for c in report.complaints if "Content Security Policy" in c]) == 2


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 390, 700, 1280])
def test_nothing_is_wider_than_the_screen(opened: Open, width: int, scheme: str) -> None:
    """Also with hostile names; below 701 px base and tuned stand in one column; ground follows."""
    report = opened(
        html_report(hostile_result(), [*pairs(3), hostile_pair()]),
        viewport={"width": width, "height": 800},
        color_scheme=scheme,
    )
    page = report.page
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    columns = page.locator(".sides").first.evaluate(
        "x => getComputedStyle(x).gridTemplateColumns.split(' ').length"
    )
    assert columns == (1 if width <= 700 else 2)
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == {"light": "rgb(252, 252, 250)", "dark": "rgb(22, 23, 26)"}[scheme]


def test_everything_can_be_reached_by_keyboard_with_the_focus_in_sight(opened: Open) -> None:
    """The first stop skips to the verdict; each stop has an outline; all controls are stops."""
    report = opened(page_of(small()))
    page = report.page
    stops = []
    for _ in range(40):
        page.keyboard.press("Tab")
        stop, outline = page.evaluate(
            "[document.activeElement.id || document.activeElement.textContent.trim(), "
            "getComputedStyle(document.activeElement).outlineStyle]"
        )
        if stop in stops or page.evaluate("document.activeElement === document.body"):
            break
        assert outline == "solid", stop
        stops.append(stop)
    assert stops[0] == "Skip to the verdict"
    assert {"register", "wrote", "language", "search", "Clear", "page", "size"} <= set(stops)


def test_without_javascript_the_report_stands_and_says_where_the_answers_are(
    opened: Open,
) -> None:
    """Verdict, table and plots are there; the filters, which would do nothing, are not."""
    page = opened(html_report(result(), pairs(3)), java_script_enabled=False).page
    assert page.locator("h1").is_visible()
    assert page.locator("figure svg").count() == 5
    assert "pairs.jsonl beside this report" in page.locator("#answers ~ noscript").inner_text()
    assert not page.locator("#filters").is_visible()


def test_the_hostile_text_of_these_tests_is_hostile(opened: Open) -> None:
    """Unescaped in a page without a policy it does act, so that the tests above mean something."""
    report = opened(f"<!doctype html><meta charset=utf-8><script>'{HOSTILE[:60]}'</script>"
                    .replace("\ud83d", ""))  # fmt: skip
    assert report.page.title() == "owned"
