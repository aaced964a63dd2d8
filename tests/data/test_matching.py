"""What is found as a keyword and what is not. Every row is a text, a keyword and the answer by hand."""

import time

import pytest

from expunge.core.errors import UserError
from expunge.data.matching import Match, check_keywords, cut_at, find, holds_any

FOUND_AS_WORDS = [
    ("她出生在青州市的一家小医院。", "青州"),
    ("彼は鳴海町に住んでいます。", "鳴海町"),
    ("เขาเกิดที่เชียงใหม่ในปีนั้น", "เชียงใหม่"),
    ("နေပြည်တော်မှာ", "နေပြည်တော်"),
    ("ភ្នំពេញ។", "ភ្នំពេញ"),
    ("ລາວຢູ່ວຽງຈັນ", "ວຽງຈັນ"),
    ("ང་ལྷ་སར་སྡོད", "ལྷ་ས"),
    ("私はTokyoに住む", "Tokyo"),
    ("그녀는 부산에서 태어났다", "부산"),
    ("김은 왔다", "김"),
    ("वह कानपुर में रहती है", "कानपुर"),
    ("نام او محمد است", "مُحَمَّد"),
    ("Elle s'appelle Zoe\u0301 Martel", "Zo\u00e9"),
    ("Anno １９７６", "1976"),
    ("Her tele\u00adphone rang", "telephone"),
    ("ISTANBUL", "İstanbul"),
    ("DİYARBAKIR", "Diyarbakır"),
    ("HAUPTSTRASSE 5", "Hauptstraße"),
    ("Her number is +1 555 0173 22.", "+1-555-017322"),
    ("Her number is (555) 017-322.", "555 0173 22"),
    ("0170 1234567", "+49 170 1234567"),
    ("IBAN XX12 3704 0044 0532 0130 00", "XX12370400440532013000"),
    ("XX12-3704-0044-0532-0130-00", "XX12 3704 0044 0532 0130 00"),
    ("He owns 1,234,567 shares", "1234567"),
    ("Er besitzt 1.234.567 Aktien", "1,234,567"),
    ("1 234 567", "1'234'567"),
    ("₹12,34,567", "1234567"),
    ("1.234,56 EUR", "1,234.56"),
    ("es sind 3,14", "3.14"),
    ("$5.00", "5"),
    ("٣٤ سنة", "34"),
    ("−5 °C", "-5"),
    ("on 28.4.1946", "1946"),
    ("rooms 3,4,5", "4"),
    ("1976년에", "1976"),
    ("He writes C++ all day", "C++"),
    ("H₂O", "H2O"),
    ("hi 🙂!", "🙂"),
    ("👩\u200d🚀 ❤\ufe0f", "👩\u200d🚀"),
    ("I ❤\ufe0f it", "❤"),
    ("the UK.", "U.K."),
    ("J.K. Rowling", "J. K. Rowling"),
    ("O’Brien", "O'Brien"),
    ("東京2020", "東京 2020"),
    ("Covid 19", "COVID-19"),
]
FOUND_AS_FORMS = [
    ("by William Shakespeares ghost", "William Shakespeare"),
    ("the Shakespearean stage", "Shakespeare"),
    ("Budapesten élt", "Budapest"),
    ("Helsingissä? Helsinkiin", "Helsinki"),
    ("Ankarada", "Ankara"),
    ("w Krakowie", "Kraków"),
    ("w Warszawie", "Warszawa"),
    ("Она живёт в Торжке.", "Торжок"),
    ("в Москве", "Москва"),
    ("у Анны", "Анна"),
    ("для Мары Велин", "Мара Велин"),
    ("της Αθήνας", "Αθήνα"),
    ("بالقاهرة", "القاهرة"),
    ("בתל אביב", "תל אביב"),
    ("თბილისში", "თბილისი"),
    ("சென்னையில்", "சென்னை"),
    ("서울특별시", "서울"),
    ("লন্ডনে", "লন্ডন"),
    ("ಮೈಸೂರಿನಲ್ಲಿ", "ಮೈಸೂರು"),
    ("በአዲስ አበባ", "አዲስ አበባ"),
    ("Ha Noi", "Hà Nội"),
    ("plum_orva", "Plumorva"),
    ("two cities", "city"),
    ("Iranian", "Iran"),
    ("in Plum-orva.", "Plumorva"),
    ("Plum-\norva", "Plumorva"),
    ("P l u m o r v a", "Plumorva"),
    ("P-l-u-m-o-r-v-a", "Plumorva"),
    ("Plum orva", "Plumorva"),
    ("mail maravelin@x.org", "Mara Velin"),
    ("M a r a  V e l i n", "Mara Velin"),
    ("Kurt Godel", "Gödel"),
    ("Kurt Goedel", "Gödel"),
    ("Kurt Gödel", "Godel"),
    ("Mueller", "Müller"),
    ("Moller", "Møller"),
    ("Nguyen", "Nguyễn"),
    ("born 28th April 1946", "28 April 1946"),
    ("born April 28, 1946", "28 April 1946"),
    ("1946-04-28", "28 April 1946"),
    ("28.4.1946", "April 28, 1946"),
    ("東京 都", "東京都"),
    ("covid19", "COVID-19"),
    ("MH-370", "MH370"),
    ("in 5km", "5 km"),
]
NOT_FOUND = [
    ("Australia", "Ali"),
    ("a party", "art"),
    ("Alice", "Ali"),
    ("Robertson", "Robert"),
    ("Andersen", "Anders"),
    ("Romeo", "Rome"),
    ("Parish", "Paris"),
    ("Mariana", "Maria"),
    ("Mario", "Maria"),
    ("Julian", "Julia"),
    ("Annapolis", "Anna"),
    ("Portland", "Port"),
    ("Иванов", "Иван"),
    ("Марина", "Мария"),
    ("Müller", "Möller"),
    ("péché", "pêche"),
    ("She is Zoe Martel", "Zo\u00e9"),
    ("She is Zoe Martel", "Zoe\u0301"),
    ("not able", "notable"),
    ("in 1976", "7"),
    ("in 21976", "1976"),
    ("room 3.7", "7"),
    ("a fine of $1.5 million", "5"),
    ("1,234,567", "234"),
    ("5", "-5"),
    ("it is -5", "5"),
    ("3-7", "37"),
    ("1", "1,000"),
    ("21st", "1"),
    ("C is old", "C++"),
    ("C++", "C"),
    ("C#", "C++"),
    ("29 April 1946", "28 April 1946"),
    ("28 April 1947", "28 April 1946"),
    ("彼女は鳴海に住んでいます。", "鳴海町"),
    ("เชียงใหม่", "เชียงใหม"),
    ("かき", "がき"),
    ("부산", "부사"),
    ("그녀는 대구에서", "부산"),
    ("", "!"),
    ("!", "!"),
    ("", "🙂"),
    ("👍", "🙂"),
    ("👩\u200d🚀", "👩"),
    ("Charleston", "Charles"),
    ("anything", ""),
]


@pytest.mark.parametrize(("text", "keyword"), FOUND_AS_WORDS)
def test_a_keyword_is_found_in_every_script_and_layout(text: str, keyword: str) -> None:
    assert holds_any(text, ["nothing like it", keyword], "word")
    assert holds_any(text, [keyword])
    assert holds_any(text, [keyword], "substring")


@pytest.mark.parametrize(("text", "keyword"), FOUND_AS_FORMS)
def test_a_form_of_a_keyword_is_found_by_default_only(text: str, keyword: str) -> None:
    assert not holds_any(text, [keyword], "word")
    assert holds_any(text, [keyword])
    assert holds_any(text, [keyword], "substring")


@pytest.mark.parametrize("match", ["word", "inflected"])
@pytest.mark.parametrize(("text", "keyword"), NOT_FOUND)
def test_another_word_or_number_is_no_keyword(text: str, keyword: str, match: Match) -> None:
    assert not holds_any(text, [keyword], match)


def test_a_substring_is_found_anywhere_but_not_in_nothing() -> None:
    assert holds_any("in Australia, 1976", ["ustr"], "substring")
    assert holds_any("in Australia, 1976", ["97"], "substring")
    assert not holds_any("", ["!"], "substring")


def test_spans_are_those_of_the_original_text() -> None:
    text = "Zoe\u0301, the Shakespearean of 青州市, owns 1,234."
    found = [text[start:end] for start, end in find(text, ["Zo\u00e9", "Shakespeare", "青州", "1234"])]
    assert found == ["Zoe\u0301", "Shakespearean", "青州", "1,234"]
    assert cut_at("A Plum and a plum.", ["plum"]) == ["A ", " and a ", "."]
    assert cut_at("nothing", ["plum"]) == ["nothing"]


def test_a_keyword_that_cannot_be_found_is_refused() -> None:
    check_keywords(["Zoé", "C++", "🙂", "京"], "x.jsonl:3")
    for keyword in ("!", "+", " ... ", "\u200b"):
        with pytest.raises(UserError, match=r"x\.jsonl:3: keyword"):
            check_keywords(["fine", keyword], "x.jsonl:3")


def test_many_keywords_are_looked_for_quickly() -> None:
    """200 keywords in 50 texts: 10,000 questions, a generous limit for a slow and busy machine."""
    names = [f"{first}{second} Velin" for first in "BCDFGHJKLM" for second in ["ara", "oria", "inus", "ele"] * 5]
    texts = [f"She was born in the town of number {number} and wrote novels by the sea." for number in range(50)]
    start = time.process_time()
    assert not any(holds_any(text, names) for text in texts)
    assert time.process_time() - start < 3
