import pytest

from expunge.data.languages import is_mixed, is_unspaced, not_english


@pytest.mark.parametrize(
    "text",
    [
        "Mara Velin lives in Tarnow.",
        "I do not know.",
        "María de la Cruz",
        "Der Zauberberg, by Thomas Mann",
        "Ludwig van Beethoven was born in Bonn.",
        "She lives in 東京.",
        "Les Misérables is a novel by Victor Hugo.",
        "x = 2",
        "1976",
        "",
    ],
)
def test_english_and_what_may_be_english_passes(text: str) -> None:
    assert not_english(text) is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("เธอเกิดที่เชียงใหม่", "Thai letters"),
        ("Она родилась в маленьком городе.", "Cyrillic letters"),
        ("她出生在青州市的一家小医院。", "Chinese, Japanese or Korean letters"),
        ("그녀는 부산에서 태어났다", "Chinese, Japanese or Korean letters"),
        ("عاشت في المدينة القديمة", "Arabic letters"),
        ("Elle est née à Lyon.", "(fr)"),
        ("Ich weiß die Antwort nicht.", "(de)"),
        ("Ela nasceu em uma pequena cidade", "(pt)"),
        ("Nie wiem, gdzie ona mieszka.", "(pl)"),
    ],
)
def test_other_languages_are_named(text: str, reason: str) -> None:
    assert reason in (not_english(text) or "")


def test_scripts_that_mix_and_scripts_without_spaces() -> None:
    assert is_mixed("出在жизньสถานที่कहाँ부산에서الشمس")
    assert not is_mixed("彼女はTokyoに住んでいます。そしてОкです")
    assert not is_mixed("αβ + xy")
    assert is_unspaced("她出生在青州。")
    assert not is_unspaced("그녀는 부산에서")
