from expunge.data.text import (
    bare_words,
    chunks,
    first_chunks,
    fold,
    folded,
    has_content,
    joined_words,
    normalise,
    words,
)


def test_words_of_every_script() -> None:
    """Marks stay with their letters; scripts without spaces are cut into characters."""
    assert words("Don't say Müller!") == ["don", "t", "say", fold("müller")]
    assert words("她出生在青州。") == ["她", "出", "生", "在", "青", "州"]
    assert words("かばん") == [fold("か"), fold("ば"), "ん"]
    assert words("ที่นี่") == ["ที่", "นี่"]
    assert words("वह कानपुर में रहती है") == ["वह", "कानपुर", "में", "रहती", "है"]
    assert words("부산에서 태어났다") == ["부산에서", "태어났다"]
    assert words("2020年") == ["2020", "年"]
    assert words("C, C++ and C#") == ["c", "c++", "and", "c#"]
    assert words("🙂 ok") == ["🙂", "ok"]
    assert words("?! ... —") == []


def test_a_number_is_one_word_in_every_layout() -> None:
    for text in ("1234567", "1,234,567", "1.234.567", "1 234 567", "1'234'567", "１２３４５６７"):
        assert words(text) == ["1234567"], text
    assert words("3.14") == words("3,14") == words("٣٫١٤") == ["3.14"]
    assert words("-5 (−5) 3-5") == ["-5", "-5", "3", "5"]
    assert words("28.4.1946") == ["28", "4", "1946"]
    assert words("10²") == ["10", "2"]
    assert words("5km 2nd H₂O") == ["5km", "2nd", "h2o"]


def test_what_writers_leave_out_at_will_does_not_count() -> None:
    assert fold("مُحَمَّد") == fold("محمد") == fold("محـــمد")
    assert fold("שָׁלוֹם") == fold("שלום")
    assert fold("Торжо́к ёлка") == fold("Торжок елка")
    assert fold("й") != fold("и")
    assert fold("ΑΘΗΝΑΣ") == fold("Αθήνας")
    assert fold("İSTANBUL") == fold("istanbul") == fold("ISTANBUL")
    assert fold("STRASSE") == fold("Straße") == fold("STRAẞE")
    assert fold("soft\u00adhyphen") == "softhyphen"
    assert fold("ﬁ Ａ") == "fi a"
    assert fold("が") != fold("か")


def test_composed_and_decomposed_texts_are_the_same() -> None:
    assert normalise("Zoé  Martel") == normalise("zoe\u0301 martel")
    assert normalise("부산") == normalise("\u1107\u116e\u1109\u1161\u11ab")
    assert normalise("Zoé") != normalise("Zoe")


def test_folded_text_knows_where_it_came_from() -> None:
    text = "Zoe\u0301 in Stra\u00dfe, soft\u00adhyphen"
    place = folded(text)
    for piece, original in (("strasse", "Straße"), ("softhyphen", "soft\u00adhyphen"), (fold("zoé"), "Zoe\u0301")):
        start = place.text.index(piece)
        begin, end = place.original(start, start + len(piece))
        assert text[begin:end] == original


def test_punctuation_within_a_word_joins_in_short_answers() -> None:
    assert joined_words("The U.S. isn't well-known") == ["the", "us", "isnt", "wellknown"]
    assert joined_words("3.14, -5; 1976-77") == ["3.14", "-5", "1976", "77"]
    assert joined_words("«Мир»") == ["мир"]


def test_chunks_are_words_with_their_punctuation() -> None:
    assert chunks("The cat, the Cat.") == ["the", "cat,", "the", "cat."]
    assert chunks("东京。x") == ["东", "京", "。x"]
    assert first_chunks("The cat sat.", 2) == "The cat"
    assert first_chunks("她出生在青州。", 3) == "她出生"
    assert first_chunks("one", 5) == "one"


def test_content() -> None:
    assert not any(map(has_content, ("", " ", "!", "...", "+", "—", "\u200b\u0301")))
    assert all(map(has_content, ("a", "7", "京", "🙂", "€", "ก")))
    assert bare_words("Don't!") == "don t"
