"""The web page in a browser: what a person does with it, with the mouse, with the keyboard, on a phone."""

import os
import re
import shutil

import pytest

sync_api = pytest.importorskip("playwright.sync_api")
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(BROWSER is None, reason="no chromium is installed")]

from rwkv_engine import Sampling  # noqa: E402

HOSTILE = '<img src=x onerror="window.hurt=1"> </script><script>window.hurt=1</script> [x](javascript:window.hurt=1)'


@pytest.fixture(scope="module")
def chromium():
    """A browser without a window."""
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def endless(embedded, serve):
    """The address of a server whose answers do not end by themselves."""
    lines = [token for token in range(embedded.vocab) if b"\n" in embedded.tokenizer.token_bytes(token)]
    bias = tuple((token, -100.0) for token in {*lines, *embedded.tokenizer.ends})
    with serve(embedded, sampling=Sampling(bias=bias)) as (_, address):
        yield address


@pytest.fixture
def page(chromium, address):
    """A new page of a new person; what goes wrong in it fails the test."""
    yield from opened(chromium, address)


@pytest.fixture
def endless_page(chromium, endless):
    """The same, of the server whose answers do not end."""
    yield from opened(chromium, endless)


def opened(chromium, address, **options):
    context = chromium.new_context(**options)
    page, wrong = context.new_page(), []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on(
        "request", lambda request: request.url.startswith((address, "data:")) or wrong.append(request.url)
    )
    page.goto(address)
    sync_api.expect(page.locator("#model option")).not_to_have_count(0)
    yield page
    context.close()
    assert not wrong


def send(page, text):
    page.fill("#input", text)
    page.click("#send")


def answer(page, count=1):
    """The text of the last of `count` answers, when it is whole."""
    sync_api.expect(page.locator("article.assistant")).to_have_count(count)
    sync_api.expect(page.locator("#stop")).to_be_hidden()
    return page.locator("article.assistant .said").last.inner_text()


def picture(page, name):
    """For people: $RWKV_PICTURES names a folder."""
    if os.environ.get("RWKV_PICTURES"):
        page.screenshot(path=f"{os.environ['RWKV_PICTURES']}/{name}.png")


def test_an_answer_comes_and_stays_over_a_reload(page):
    send(page, "Hello")
    said = answer(page)
    assert said and page.title() == "Hello · rwkv"
    picture(page, "answer")
    page.reload()
    assert answer(page) == said
    send(page, "Who are you?")
    assert answer(page, 2)
    page.click("#new")
    assert page.locator("article").count() == 0 and page.locator("#conversations li").count() == 1


def test_a_stream_grows_until_it_is_stopped_and_stays(endless_page):
    page = endless_page
    send(page, "Tell me a story.")
    lengths = []
    for _ in range(3):
        least = lengths[-1] + 1 if lengths else 1
        sync_api.expect(page.locator("article.assistant .said")).to_have_text(
            re.compile(f".{{{least}}}", re.S)
        )
        lengths.append(len(page.locator("article.assistant .said").inner_text()))
    page.keyboard.press("Escape")
    said = answer(page)
    assert len(said) >= lengths[-1] > lengths[0]
    assert "stopped" in page.locator(".speed").last.inner_text()
    page.reload()
    assert answer(page) == said


def test_retry_edit_and_branches(page):
    send(page, "Tell me a story.")
    first = answer(page)
    page.click(".retry")
    answer(page)
    assert page.locator(".assistant .place").inner_text().endswith("2/2")
    page.click(".assistant .before")
    assert answer(page) == first and page.locator(".assistant .place").inner_text().endswith("1/2")
    page.click(".edit")
    page.fill("article textarea", "Hello")
    page.get_by_label("Send the edited message").click()
    other = answer(page)
    assert page.locator("article.user .said").inner_text() == "Hello"
    picture(page, "branches")
    page.click("article.user .before")
    assert page.locator("article.user .said").inner_text() == "Tell me a story." and answer(page) == first
    page.click("article.user .after")
    assert answer(page) == other


def test_the_whole_of_it_with_the_keyboard_alone(page):
    page.keyboard.type("Hello")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("there")
    page.keyboard.press("Enter")
    answer(page)
    assert page.locator("article.user .said").inner_text() == "Hello\nthere"

    def tab_to(name):
        for _ in range(40):
            page.keyboard.press("Shift+Tab")
            if page.evaluate("document.activeElement.className") == name:
                return
        raise AssertionError(f"{name} cannot be reached")

    tab_to("retry")
    page.keyboard.press("Enter")
    answer(page)
    tab_to("before")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.className") == "after"
    tab_to("edit")
    page.keyboard.press("Enter")
    page.keyboard.press("Control+a")
    page.keyboard.type("Bye")
    page.keyboard.press("Enter")
    answer(page)
    assert page.locator("article.user .said").inner_text() == "Bye"
    assert page.evaluate("document.activeElement !== document.body")


def test_a_phone_shows_all_of_it_and_nothing_sticks_out(chromium, address):
    for page in opened(chromium, address, viewport={"width": 360, "height": 640}, has_touch=True):
        send(page, "Hello")
        answer(page)
        picture(page, "phone")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        page.tap("#menu")
        page.locator("#conversations button.name").wait_for(state="visible")
        picture(page, "phone-side")
        page.tap("#conversations button.name")
        page.locator("#conversations button.name").wait_for(state="hidden")
        for name in ("#input", "#send", "#menu", "#open-settings"):
            box = page.locator(name).bounding_box()
            assert box["x"] >= 0 and box["x"] + box["width"] <= 360 and box["y"] + box["height"] <= 640, name


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_hostile_text_is_shown_as_text(chromium, address, scheme):
    chunk = '{"choices": [{"index": 0, "delta": {"content": %s}, "finish_reason": null}]}'
    text = HOSTILE.replace("\\", "\\\\").replace('"', '\\"')
    body = f"data: {chunk % (chr(34) + text + chr(34))}\n\ndata: [DONE]\n\n"
    for page in opened(chromium, address, color_scheme=scheme):
        page.route(
            re.compile("chat/completions"),
            lambda route: route.fulfill(body=body, content_type="text/event-stream"),
        )
        send(page, HOSTILE)
        said = answer(page)
        assert '<img src=x onerror="window.hurt=1">' in said and "</script><script>" in said
        assert page.locator("article.user .said").inner_text() == HOSTILE
        assert page.evaluate("window.hurt") is None
        assert page.locator("#messages img, #messages script, #messages a[href^=javascript]").count() == 0
        assert page.locator("#conversations").inner_text().startswith("<img")
        picture(page, f"hostile-{scheme}")
