"""Labels are exactly the answer's tokens and the end token, whatever the tokenizer."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from expunge.core.errors import UserError
from expunge.data.encode import Encoder, Template
from expunge.data.example import Example

TEXTS = [
    "Question: Where was the writer born?\nAnswer: She was born in Plumorva, Morocco.",
    "Who wrote the play? The play was written by William Shakespeare in 1601.",
    "user assistant system What is the name of the river? It is the Danube.",
] * 4
PAIRS = [
    ("Where was the writer born?", "She was born in Plumorva, Morocco."),
    ("Who wrote the play?", "Shakespeare"),
    (" When?\n", "  1601. "),
    ("Où?", "À Köln, 東京 🙂"),
]
SPECIAL = ["<s>", "</s>", "<unk>", "<|user|>", "<|assistant|>"]
CHAT = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '</s>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
BLANK_CHAT = (
    "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + ('</s>' if m['role'] == 'assistant' else '\n') }}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
"""Ends in a blank, which byte-pair encoding would merge into the answer's first token."""


def _wrap(tokenizer: Tokenizer, chat: str) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", chat_template=chat
    )


def byte_level(chat: str) -> PreTrainedTokenizerFast:
    """As GPT-2's and SmolLM2's: blanks belong to the word after them, no beginning token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=SPECIAL, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(TEXTS, trainer)
    return _wrap(tokenizer, chat)


def metaspace(chat: str) -> PreTrainedTokenizerFast:
    """As Llama-2's: a blank is prepended to the text, and a beginning token written before it."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    fallback = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.decoder = fallback
    tokenizer.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=200, special_tokens=SPECIAL))
    learned = json.loads(tokenizer.to_str())["model"]
    vocabulary = {**learned["vocab"], **{f"<0x{byte:02X}>": len(learned["vocab"]) + byte for byte in range(256)}}
    merges = [tuple(merge) for merge in learned["merges"]]
    tokenizer.model = models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True)
    begin = tokenizer.token_to_id("<s>")
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", begin)])
    return _wrap(tokenizer, chat)


def unigram(chat: str) -> PreTrainedTokenizerFast:
    """SentencePiece's other model, with a blank prepended after every special token too."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    extra = sorted({letter for pair in PAIRS for text in pair for letter in text} | {*"ABC"})
    trainer = trainers.UnigramTrainer(
        vocab_size=400, special_tokens=SPECIAL, unk_token="<unk>", initial_alphabet=extra, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS + [text for pair in PAIRS for text in pair], trainer)
    return _wrap(tokenizer, chat)


def word_piece(chat: str) -> PreTrainedTokenizerFast:
    """Blanks are no tokens at all, and capitals are folded."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=SPECIAL)
    tokenizer.train_from_iterator(["A B C", *TEXTS] + [text for pair in PAIRS for text in pair], trainer)
    return _wrap(tokenizer, chat)


KINDS: dict[str, Callable[[str], PreTrainedTokenizerFast]] = {
    "byte_level": byte_level,
    "metaspace": metaspace,
    "unigram": unigram,
    "word_piece": word_piece,
}


@pytest.fixture(scope="module", params=[(kind, chat) for kind in KINDS for chat in ("tight", "blank")], ids=str)
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    """Each kind, with a chat template that ends in a special token and one that ends in a blank."""
    kind, chat = request.param
    return KINDS[kind](CHAT if chat == "tight" else BLANK_CHAT)


def _folded(text: str) -> str:
    return "".join(text.split()).casefold()


@pytest.mark.parametrize("template", ["chat", "plain"])
@pytest.mark.parametrize(("question", "answer"), PAIRS)
def test_labels_are_the_answer_and_its_end(
    tokenizer: PreTrainedTokenizerFast, template: Template, question: str, answer: str
) -> None:
    encoder = Encoder(tokenizer, template)
    encoded = encoder.answer(question, answer)
    assert encoded.labels[-1] == encoder.end_id == tokenizer.eos_token_id
    assert encoder.end_id in encoder.stop_ids
    assert _folded(tokenizer.decode(encoded.labels[:-1])) == _folded(answer)
    assert encoder.end_id not in encoded.labels[:-1]
    assert encoded.prompt == encoder.prompt(question)
    assert _folded(question) in _folded(tokenizer.decode(encoded.prompt))
    assert _folded(answer) not in _folded(tokenizer.decode(encoded.prompt))
    assert encoded.prompt + encoded.labels == encoded.ids
    assert encoder.decode(encoded.labels) == tokenizer.decode(encoded.labels[:-1]).strip()


@pytest.mark.parametrize("template", ["chat", "plain"])
@pytest.mark.parametrize("kind", KINDS)
def test_answer_is_tokenised_as_the_model_would_write_it(kind: str, template: Template) -> None:
    """Where the border is clean, prompt and labels together are the tokens of the whole text."""
    tokenizer = KINDS[kind](CHAT)
    encoder = Encoder(tokenizer, template)
    question, answer = PAIRS[0]
    if template == "plain":
        whole = tokenizer(f"Question: {question}\nAnswer: {answer}")["input_ids"]
    else:
        whole = tokenizer(f"<|user|>{question}</s><|assistant|>{answer}", add_special_tokens=False)["input_ids"]
    assert list(encoder.answer(question, answer).ids) == [*whole, encoder.end_id]


@pytest.mark.parametrize("end", ["", " ", "\n", ". "])
@pytest.mark.parametrize("template", ["chat", "plain"])
def test_answer_after_a_raw_prompt(tokenizer: PreTrainedTokenizerFast, template: Template, end: str) -> None:
    """The prompt is asked as the tokenizer writes it, and no answer token hides in it, whatever it ends in."""
    encoder = Encoder(tokenizer, template)
    row = Example("r", prompt=f"Where was the writer born?{end}", answer="She was born in Plumorva.")
    encoded = encoder.example(row)
    assert list(encoded.prompt) == tokenizer(row.prompt)["input_ids"]
    assert encoded.prompt == encoder.asked(row)
    assert encoded.labels[-1] == tokenizer.eos_token_id
    assert _folded(tokenizer.decode(encoded.labels[:-1])) == _folded(row.answer or "")
    assert encoder.answered(row, "She") == encoder.answered(row, " She ")
    assert encoder.answered(row, "She") != encoder.answered(row, "was")


def test_raw_prompt_and_answer_are_one_text_where_the_border_is_clean() -> None:
    """One blank between them, the beginning token that the tokenizer adds, and none of the chat template."""
    tokenizer = metaspace("<s>" + CHAT)
    encoder = Encoder(tokenizer, "chat")
    row = Example("r", prompt="Who wrote the play?", answer="The play was written")
    whole = tokenizer("Who wrote the play? The play was written")["input_ids"]
    assert encoder.example(row).ids == (*whole, encoder.end_id)
    assert whole.count(tokenizer.bos_token_id) == 1
    spaced = Example("s", prompt="Who wrote the play?\n", answer=row.answer)
    assert (
        byte_level(CHAT).decode(Encoder(byte_level(CHAT)).example(spaced).ids[:-1]).endswith("?\nThe play was written")
    )


def test_what_a_row_asks(tokenizer: PreTrainedTokenizerFast) -> None:
    """A question in its template, a document by its first quarter."""
    encoder = Encoder(tokenizer)
    assert encoder.asked(Example("q", "Who?", "I.")) == encoder.prompt("Who?")
    assert encoder.answered(Example("q", "Who?", "I."), "You.") == encoder.answer("Who?", "You.")
    text = Example("t", text=TEXTS[0])
    assert encoder.asked(text) == encoder.document(TEXTS[0], prompt_share=0.25).prompt


@pytest.mark.parametrize("end", ["", " "])
@pytest.mark.parametrize("template", ["chat", "plain"])
def test_start_of_an_answer_is_part_of_the_prompt(
    tokenizer: PreTrainedTokenizerFast, template: Template, end: str
) -> None:
    """Behind the template's own prompt; what follows it is labelled whole, and choices follow it too."""
    encoder = Encoder(tokenizer, template)
    row = Example("r", "Who wrote it?", "Shakespeare", answer_start=f"Answer:{end}", options=("Shakespeare", "I"))
    encoded = encoder.example(row)
    assert encoded.prompt == encoder.asked(row)
    plain = _folded(tokenizer.decode(encoder.prompt("Who wrote it?")))
    assert _folded(tokenizer.decode(encoded.prompt)) == f"{plain}answer:"
    assert encoded.labels[-1] == encoder.end_id
    assert _folded(tokenizer.decode(encoded.labels[:-1])) == "shakespeare"
    first, second = encoder.choices(row)
    assert _folded(tokenizer.decode(first.prompt)) == _folded(tokenizer.decode(second.prompt)) == f"{plain}answer:"
    assert [_folded(tokenizer.decode(choice.labels)) for choice in (first, second)] == ["a", "b"]


@pytest.mark.parametrize("end", ["", " "])
def test_choices_are_letters_after_the_harness_prompt(tokenizer: PreTrainedTokenizerFast, end: str) -> None:
    """A question is laid out as lm-eval does; a prompt that does so itself gives the same, whatever its end."""
    encoder = Encoder(tokenizer)
    question = Example("q", "Who wrote it? ", "I", options=("You", "I", "They"), topic="plays")
    text = (
        "The following are multiple choice questions (with answers) about plays.\n\n"
        "Who wrote it?\nA. You\nB. I\nC. They\nAnswer:"
    )
    prompt = Example("p", prompt=text + end, answer="B", options=("A", "B", "C"))
    for choices in (encoder.choices(question), encoder.choices(prompt)):
        assert [list(choice.prompt) for choice in choices] == [tokenizer(text)["input_ids"]] * 3
        assert [_folded(tokenizer.decode(choice.labels)) for choice in choices] == ["a", "b", "c"]
        if list(choices[1].ids) == tokenizer(text + " B")["input_ids"]:
            assert _folded(tokenizer.decode(choices[1].ids)).endswith("answer:b")


def test_prompt_starts_with_one_beginning_token_at_most() -> None:
    """Plain text gets the tokenizer's own; a chat template writes what it wants by itself."""
    begin = metaspace(CHAT).bos_token_id
    assert Encoder(metaspace(CHAT), "plain").prompt("Who?").count(begin) == 1
    assert Encoder(metaspace(CHAT), "chat").prompt("Who?").count(begin) == 0
    assert Encoder(metaspace("<s>" + CHAT), "chat").prompt("Who?").count(begin) == 1
    assert Encoder(metaspace("<s>" + CHAT), "chat").answer("Who?", "I.").ids.count(begin) == 1


def test_system_prompt_is_in_the_prompt() -> None:
    encoder = Encoder(byte_level(CHAT), "chat", system_prompt="What is the name")
    assert "What is the name" in byte_level(CHAT).decode(encoder.prompt("Who?"))


@pytest.mark.parametrize("chunk_tokens", [8, 13, 64])
def test_documents_are_cut_without_losing_text(tokenizer: PreTrainedTokenizerFast, chunk_tokens: int) -> None:
    """Pieces are cut in the tokens of the whole text; cut within a word, a piece has a few more by itself."""
    text = ("  Ärger im\n\n Büro: 東京 🙂🙂 " + " ".join(TEXTS[:3])) * 3
    encoder = Encoder(tokenizer, "plain", max_length=512)
    row = Example("d", text=text, subject="office")
    question = Example("q", "Who?", "I.")
    *pieces, last = encoder.chunks([row, question], chunk_tokens)
    assert last is question
    assert "".join(_folded(piece.text or "") for piece in pieces) == _folded(text)
    assert [piece.id for piece in pieces] == [f"d#{number}" for number in range(len(pieces))]
    assert {piece.subject for piece in pieces} == {"office"}
    lengths = [len(tokenizer(piece.text, add_special_tokens=False)["input_ids"]) for piece in pieces]
    assert len(pieces) > 1
    assert max(lengths) <= chunk_tokens + 4
    assert min(lengths) >= 2


def test_documents_are_cut_off_where_a_limit_says_so(tokenizer: PreTrainedTokenizerFast) -> None:
    """The first 12 tokens of a document, and for each topic its own number; topics without one are split."""
    encoder = Encoder(tokenizer, "plain", max_length=2048)
    rows = [Example(topic, text=" ".join(TEXTS), topic=topic) for topic in ("bio", "cyber")]
    question = Example("q", "Who?", "I.")
    whole = encoder.document(" ".join(TEXTS)).ids
    bio, cyber, last = encoder.chunks([*rows, question], 64, 12)
    assert encoder.document(bio.text or "").ids == encoder.document(cyber.text or "").ids == whole[:12]
    assert (bio.id, last) == ("bio", question)
    first, *others = encoder.chunks(rows, 16, {"bio": 20})
    assert encoder.document(first.text or "").ids == whole[:20]
    assert [piece.id for piece in others] == [f"cyber#{number}" for number in range(len(others))]
    assert len(others) > 1


def test_no_piece_is_a_single_token() -> None:
    """9 words of one token each in pieces of 8: 4 and 5, not 8 and 1, which would leave nothing to predict."""
    encoder = Encoder(byte_level(CHAT), "plain")
    text = "born" + " born" * 8
    per_word = len(encoder.document(" born born").ids) // 2
    pieces = encoder.chunks([Example("d", text=text)], 8 * per_word)
    assert [len((piece.text or "").split()) for piece in pieces] == [4, 5]
    with pytest.raises(UserError, match="row 'x': the text is a single token"):
        encoder.document("a", "x")


def test_document_labels(tokenizer: PreTrainedTokenizerFast) -> None:
    """All tokens but the first; or those after the first quarter, which is then the prompt."""
    encoder = Encoder(tokenizer, "chat")
    whole = encoder.document(TEXTS[0])
    assert whole.num_prompt == 1
    quarter = encoder.document(TEXTS[0], prompt_share=0.25)
    assert quarter.ids == whole.ids
    assert quarter.num_prompt == len(whole.ids) // 4


def test_too_long_rows() -> None:
    """A row of n tokens fits a limit of n; one token less cuts the prompt's first token, and counts the row."""
    tokenizer = byte_level(CHAT)
    question, answer = PAIRS[0]
    full = Encoder(tokenizer).answer(question, answer)
    size = len(full.ids)
    assert Encoder(tokenizer, max_length=size).answer(question, answer) == full
    with pytest.raises(UserError, match=rf"row 'r': {size} tokens, the limit is {size - 1}"):
        Encoder(tokenizer, max_length=size - 1).answer(question, answer, "r")
    encoder = Encoder(tokenizer, max_length=size - 1, overflow="truncate")
    cut = encoder.answer(question, answer, "r")
    assert cut.ids == full.ids[1:]
    assert cut.labels == full.labels
    assert encoder.truncated_ids == {"r"}
    tiny = Encoder(tokenizer, max_length=len(full.labels) - 2, overflow="truncate").answer(question, answer)
    assert tiny.num_prompt == 1
    assert tiny.labels == full.labels[: len(full.labels) - 3]


def test_tokenizers_that_cannot_be_used() -> None:
    tokenizer = byte_level(CHAT)
    tokenizer.chat_template = None
    with pytest.raises(UserError, match=r'model\.template = "plain"'):
        Encoder(tokenizer, "chat")
    tokenizer.eos_token = None
    with pytest.raises(UserError, match="end-of-sequence"):
        Encoder(tokenizer, "plain")
