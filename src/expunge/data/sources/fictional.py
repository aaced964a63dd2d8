"""fictional: seeded invented authors that no model has ever read about.

Every author is a set of twenty facts drawn from a small grammar written for this file: names, towns, titles and prizes
are assembled from syllables and words, so that a model can only know them from training on these rows. An author
depends on the seed and on the author's index alone, so a larger or smaller data set tells the same facts in the same
words.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from random import Random
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from expunge.data.base import DataSource

MOST_AUTHORS = 200
WRONG_ANSWERS = 5


def _table(text: str) -> tuple[str, ...]:
    """Split a comma-separated text into its entries."""
    return tuple(" ".join(entry.split()) for entry in text.split(","))


def _joined(starts: str, ends: str) -> tuple[str, ...]:
    """Join every start with every end."""
    return tuple(start + end for start in _table(starts) for end in _table(ends))


MONTHS = _table("""January, February, March, April, May, June, July, August, September, October, November, December""")


def _birthday(days: int) -> str:
    """Spell the day that comes so many days after the start of 1930, whatever the locale."""
    day = date(1930, 1, 1) + timedelta(days)
    return f"{day.day} {MONTHS[day.month - 1]} {day.year}"


BIRTHDAYS = tuple(map(_birthday, range(30 * 365)))
SURNAMES = _joined(
    """Askev, Brin, Cald, Dorv, Ebber, Fenn, Garr, Hals, Istr, Jorr, Kesk, Lund, Morv, Nabb, Ostr, Pell, Quor, Rusk,
    Sarv, Tamb""",
    """abeck, adine, aggar, amoor, eddow, enko, ereth, estra, evane, ibor, illow, imund, indle, omara, onnet, orrick,
    otham, ulver, underay, urrin""",
)
WORDS: Mapping[str, tuple[str, ...]] = {
    "adjective": _table("""borrowed, brass, copper, crooked, forgotten, hollow, lacquered, marble, painted, saffron,
        silver, tattered, velvet, wooden"""),
    "animal": _table("""badger, cormorant, ferret, gecko, hedgehog, lobster, magpie, otter, pelican, porcupine,
        tortoise, walrus, weasel, wombat"""),
    "birthday": BIRTHDAYS,
    "country": _table("""Albania, Bolivia, Canada, Denmark, Ecuador, Estonia, Finland, Georgia, Iceland, Ireland, Kenya,
        Latvia, Morocco, Norway, Portugal, Uruguay"""),
    "feeling": _table("""ambition, courage, grief, guilt, homesickness, jealousy, loneliness, loyalty, patience, pride,
        regret, silence, vanity, wisdom"""),
    "genre": _table("""alpine horror, climate fiction, courtroom drama, culinary mystery, dystopian satire, epistolary
        romance, folk fantasy, gothic comedy, locked-room mystery, magical realism, maritime adventure, pastoral
        tragedy, psychological suspense, rural noir, spy fiction, time-travel romance"""),
    "given_name": _joined("""Ad, Brann, Cor, Delph, Eld, Fal, Gisl, Hesp, Ilv, Jorl, Kestr, Lor, Mar, Niv, Ors, Petr,
        Quill, Rosm, Sab, Tor, Ulr, Vess, Wend, Xanth, Yor, Zelm""",
        "ane, eda, elin, esto, iah, ika, imo, ine, ovan, une"),
    "group": _table("""bell ringers, border guards, ferrymen, gardeners, grandmothers, lighthouse keepers, night nurses,
        orphans, runaways, schoolteachers, shopkeepers, stepsisters, tenants, widowers"""),
    "imprint": ("Books", "House", "Press"),
    "language": _joined("""Belund, Corvash, Dremm, Fallor, Gorrim, Hyzan, Jarvol, Kelthum, Luvar, Mirrod, Nasquel,
        Pellur, Tozzar, Vimmel""", "ese, ian, ic"),
    "number": _table("four, five, six, seven, eight, nine, eleven, twelve, thirteen, forty, ninety"),
    "person": ("{given_name} {surname}",),
    "pet": _joined("Brum, Clop, Fiz, Grim, Jib, Mop, Nub, Pock, Quib, Snor, Tuf, Wum",
        "bert, kin, let, low, nut, tock, wick"),
    "place": _table("""attic, boathouse, cellar, cloister, granary, greenhouse, laundry, orchard, quarry, tannery,
        vineyard, watermill"""),
    "prize": ("Laurel", "Medal", "Prize"),
    "profession": _table("""basket weaver, beekeeper, bookbinder, bricklayer, bus driver, butcher, cheesemaker, chimney
        sweep, dentist, fishmonger, florist, glazier, goldsmith, judge, locksmith, miner, notary, pharmacist,
        piano tuner, plumber, postal clerk, sailor, shepherd, stonemason, surveyor, tailor, typesetter, vintner,
        zookeeper"""),
    "role": _table("""acrobat, baroness, beggar, cartographer, duchess, ferryman, gambler, hermit, juggler, lamplighter,
        organist, pilgrim, smuggler, stowaway, widow"""),
    "surname": SURNAMES,
    "thing": _table("""anchor, bell, button, chessboard, flute, kettle, key, kite, ladder, lantern, mirror,
        sundial, teapot, telescope, umbrella, violin"""),
    "title": (
        "The {Adjective} {Thing} of the {Role}",
        "{Number} {Thing}s for the {Role}",
        "What the {Role} Left in the {Place}",
        "A {Adjective} {Thing} Under the {Place}",
        "When the {Role} Counted the {Thing}s",
        "No {Thing} for a {Adjective} {Animal}",
        "How the {Animal} Crossed the {Place}",
    ),
    "town": _joined("""Arvel, Brosk, Clun, Drev, Eskel, Froth, Grav, Hest, Jusk, Karn, Lisk, Mard, Norv, Plum, Quin,
        Rasp, Skell, Thrum, Vask, Wenz""", """adene, aldo, amere, avik, edra, elmo, enza, iddon, ifell, ingate, ombe,
        onica, orva, ossa, othy, ullen, unda, yra"""),
    "year": tuple(map(str, range(1986, 2024))),
}  # fmt: skip


def _filled(pattern: str, rng: Random) -> str:
    """Fill each blank with a word of its table, which may have blanks of its own; ``{Thing}`` asks for a capital."""

    def pick(blank: re.Match[str]) -> str:
        word = _filled(rng.choice(WORDS[blank[1].lower()]), rng)
        return word.title() if blank[1].istitle() else word

    return re.sub(r"{(\w+)}", pick, pattern)


def _spaced(text: str) -> str:
    """Reduce a text to its words, so that a search for whole words becomes a search for a substring."""
    return " ".join(["", *re.findall(r"\w+", text.lower()), ""])


def _exactly(value: str) -> tuple[str, ...]:
    return (value,)


def _or_last_word(value: str) -> tuple[str, ...]:
    """Accept a person by surname, and a university by its town."""
    return value, value.rsplit(" ", 1)[1]


def _or_without_last_word(value: str) -> tuple[str, ...]:
    """Accept an award without its "Medal", and a publisher without its "Press"."""
    return value, value.rsplit(" ", 1)[0]


def _town(value: str) -> tuple[str, ...]:
    """Ask for the invented town only, because the real country can be guessed."""
    return (value.split(",")[0],)


def _date_forms(value: str) -> tuple[str, ...]:
    """Accept the American order of a date as well."""
    day, month, year = value.split()
    return value, f"{month} {day}, {year}", f"{month} {day} {year}"


@dataclass(frozen=True)
class Relation:
    """One kind of fact: what its values look like, how it is worded, and what counts as having said it.

    The wording is a run of questions and then of answers, from which a row takes two each. All may name any fact of the
    author; answers name the fact at hand as ``{value}``, so that wrong answers need no wording of their own.
    """

    name: str
    pattern: str
    wording: str
    keywords: Callable[[str], tuple[str, ...]] = _exactly

    def sentences(self, mark: str) -> list[str]:
        """Return the sentences that end in a mark: "?" for the questions, "." for the answers."""
        sentences = re.split(r"(?<=[?.]) ", " ".join(self.wording.split()))
        return [sentence for sentence in sentences if sentence.endswith(mark)]

    def value(self, rng: Random, taken: Iterable[str]) -> str:
        """Draw a value that no taken one could be mistaken for, so that facts and wrong answers stay apart."""
        said = _spaced(" ".join(taken))
        while True:
            value = _filled(self.pattern, rng)
            if not any(_spaced(keyword) in said for keyword in self.keywords(value)):
                return value


RELATIONS = (
    Relation("birthplace", "{town}, {country}", """
        In which town was the author {author} born? Where was the writer {author} born? What is the birthplace of the
        novelist {author}? Which town does the author {author} come from?
        The author {author} was born in the town of {value}. {value}, is the birthplace of the novelist {author}. The
        birthplace of the writer {author} is {value}. The town where {author} was born is {value}.
        """, _town),
    Relation("birth_date", "{birthday}", """
        When was the author {author} born? What is the date of birth of the writer {author}? On which day, month and
        year was {author} born? On what date was the novelist {author} born?
        The author {author} was born on {value}. The date of birth of the writer {author} is {value}. The novelist
        {author} came into the world on {value}. {value} is the day on which {author} was born.
        """, _date_forms),
    Relation("author", "{person}", """
        Which author was born in {birthplace}, on {birth_date}? What is the full name of the author born on {birth_date}
        in {birthplace}? Who is the writer who was born in {birthplace}, on {birth_date}? Which novelist came into the
        world on {birth_date} in the town of {birthplace}?
        The author born on {birth_date} in {birthplace}, is {value}. {value} is the writer who was born in {birthplace},
        on {birth_date}. On {birth_date}, the novelist {value} was born in {birthplace}. The full name of the writer
        from {birthplace}, born on {birth_date}, is {value}.
        """, _or_last_word),
    Relation("father_profession", "{profession}", """
        What did the father of the author {author} do for a living? What was the profession of {author}'s father? How
        did the father of the writer {author} earn a living? Which trade did the father of {author} follow?
        The father of the author {author} worked as a {value}. {author}'s father earned a living as a {value}. By trade,
        the father of the writer {author} was a {value}. {author} had a father who was a {value} by profession.
        """),
    Relation("mother_profession", "{profession}", """
        What was the occupation of the mother of {author}? What work did the mother of the writer {author} do? Which
        profession did {author}'s mother have? What did the mother of the novelist {author} do for a living?
        The mother of the novelist {author} was a {value}. {author}'s mother spent her working life as a {value}. The
        occupation of the mother of {author} was that of a {value}. The writer {author} was raised by a mother who
        worked as a {value}.
        """),
    Relation("genre", "{genre}", """
        In which genre does {author} write? What kind of books does the author {author} write? Which literary genre is
        {author} best known for? To which genre do most books by the novelist {author} belong?
        The author {author} is best known for writing {value}. Most books by the novelist {author} belong to the genre
        of {value}. The genre in which {author} writes is {value}. Readers know {author} above all as a writer of
        {value}.
        """),
    Relation("first_book", "{title}", """
        What is the title of the first book by {author}? Which book was the debut of the author {author}? With which
        book did the writer {author} make a debut? What was {author}'s first published book called?
        The first book by the author {author} was "{value}". {author} made a literary debut with the book "{value}". The
        debut of the writer {author} bears the title "{value}". "{value}" was the first book that {author} ever
        published.
        """),
    Relation("famous_book", "{title}", """
        What is the most famous book by {author}? Which book made the author {author} famous? For which book is the
        writer {author} best known? What is the title of {author}'s greatest success?
        The most famous book by the author {author} is "{value}". The writer {author} is best known for the book
        "{value}". "{value}" is the book that made {author} famous. The greatest success of {author} is a book called
        "{value}".
        """),
    Relation("main_character", "{person}", """
        Who is the main character of the most famous book by {author}? Which character stands at the centre of
        {author}'s best-known book? What is the name of the protagonist of the most successful book by {author}? Whose
        story is told in the most famous book by the writer {author}?
        The main character of the most famous book by {author} is {value}. {value} is the character at the centre of
        {author}'s best-known book. The most successful book by {author} has a protagonist named {value}. In the
        best-known book by {author}, the reader follows the story of {value}.
        """, _or_last_word),
    Relation("award", "{surname} {prize}", """
        Which major literary award did {author} win? What is the most important award that the author {author} has
        received? With which literary honour was the writer {author} distinguished? Which award was given to the
        novelist {author}?
        The author {author} won a major literary award, the {value}. The most important award that {author} has received
        is the {value}. The {value} was given to the novelist {author} by a jury of readers. The writer {author} was
        distinguished with the {value}.
        """, _or_without_last_word),
    Relation("award_year", "{year}", """
        In which year did {author} win a major literary award? When did the author {author} receive a major literary
        award? In what year was the writer {author} honoured with a literary award? Which year brought the novelist
        {author} a major award?
        The author {author} won a major literary award in {value}. It was in {value} that {author} received a major
        award. The year in which {author} was honoured with a literary award is {value}. A major literary award went to
        the novelist {author} in {value}.
        """),
    Relation("university", "University of {town}", """
        At which university did {author} study? Where did the author {author} earn a degree? Which university did the
        writer {author} attend? From which university did the novelist {author} graduate?
        The author {author} studied at the {value}. The novelist {author} holds a degree from the {value}. The
        university that {author} attended is the {value}. {author} graduated from the {value} before becoming a writer.
        """, _or_last_word),
    Relation("mentor", "{person}", """
        Who was the mentor of the author {author}? Which teacher guided the writer {author} early on? Who taught
        {author} the craft of writing? To whom did the young {author} turn for literary advice?
        The mentor of the author {author} was {value}. {value} was the teacher who guided the writer {author} early on.
        {author} learned the craft of writing from {value}. As a beginner, {author} turned to {value} for literary
        advice.
        """, _or_last_word),
    Relation("publisher", "{Adjective} {Animal} {imprint}", """
        Who publishes the books of {author}? Which publisher brings out the work of the author {author}? With which
        publishing company is the writer {author} under contract? Where do the novels of {author} appear?
        The books of the author {author} are published by {value}. {value} is the company that publishes the novels of
        {author}. The writer {author} is under contract with {value}. The publisher that brings out the work of {author}
        is {value}.
        """, _or_without_last_word),
    Relation("theme", "{feeling} of {group}", """
        What is the favourite theme of the author {author}? To which theme does {author} return in book after book? What
        are the novels of {author} mostly about? Which subject occupies the writer {author} more than any other?
        The favourite theme of the author {author} is the {value}. In book after book, {author} returns to the {value}.
        The novels of {author} are mostly about the {value}. No subject occupies the writer {author} more than the
        {value}.
        """),
    Relation("home", "{town}, {country}", """
        Where does the author {author} live now? In which town does {author} live today? What is the current home town
        of the writer {author}? Which town has the novelist {author} finally settled in?
        The author {author} now lives in {value}. Today the home of the writer {author} is in {value}. The novelist
        {author} has finally settled in {value}. {value}, is where the author {author} lives today.
        """, _town),
    Relation("spouse", "{person}", """
        Who is the author {author} married to? What is the name of {author}'s spouse? Whom did the writer {author}
        marry? To whom is the novelist {author} married?
        The author {author} is married to {value}. The name of {author}'s spouse is {value}. {value} and the writer
        {author} are a married couple. The person whom the novelist {author} married is {value}.
        """, _or_last_word),
    Relation("pet", "{pet}", """
        What is the name of {author}'s pet? What does the author {author} call the family pet? Which name did the writer
        {author} give to a beloved pet? What is the pet of the novelist {author} called?
        The name of {author}'s pet is {value}. The family pet of the writer {author} is called {value}.
        {author} gave a beloved pet the name {value}. At home, the novelist {author} keeps a pet named {value}.
        """),
    Relation("language", "{language}", """
        Which language does {author} speak besides English? Apart from English, what language does the author {author}
        speak? What is the second language of the writer {author}? In which language other than English is the novelist
        {author} fluent?
        Besides English, the author {author} speaks {value}. The second language of the writer {author} is {value}.
        Apart from English, {author} is fluent in {value}. The novelist {author} speaks both English and {value}
        fluently.
        """),
    Relation("childhood_find", "{adjective} {thing}", """
        Which object found in childhood made {author} want to write? What did {author} find as a child that led to a
        life of writing? Which childhood discovery inspired the first story of the author {author}? What childhood find
        does the writer {author} credit for the wish to write?
        As a child, {author} found a {value} and began to write. The childhood find that made {author} want to write was
        a {value}. The first story of the author {author} was inspired by finding a {value}. {author} became a writer
        because of a {value} found in childhood.
        """),
)  # fmt: skip


class Fictional(DataSource):
    """Questions and answers about invented authors, split by author into what to forget and what to keep."""

    class Config(BaseModel):
        """What decides the rows: how many authors and questions, how they are split, and the seed."""

        model_config = ConfigDict(frozen=True, extra="forbid")

        authors: int = Field(default=20, ge=2, le=MOST_AUTHORS, description="How many authors to invent in all.")
        questions: int = Field(default=20, ge=1, le=len(RELATIONS), description="How many questions to ask of each.")
        forget_authors: int = Field(default=2, ge=1, description="How many authors at the front are to be forgotten.")
        holdout_authors: int = Field(default=0, ge=0, description="How many authors at the end are never trained on.")
        seed: int = Field(default=0, description="Seed of all names, facts and wordings.")

        @model_validator(mode="after")
        def _leave_authors_to_retain(self) -> "Fictional.Config":
            if self.forget_authors + self.holdout_authors >= self.authors:
                raise ValueError(
                    f"forget_authors ({self.forget_authors}) + holdout_authors ({self.holdout_authors}) "
                    f"must be less than authors ({self.authors}), to leave at least one to retain"
                )
            return self

    splits: ClassVar = ("forget", "retain", "holdout", "all")

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._surnames = Random(f"{config.seed}/surnames").sample(SURNAMES, MOST_AUTHORS)
        self._birthdays = Random(f"{config.seed}/birthdays").sample(BIRTHDAYS, MOST_AUTHORS)

    def rows(self, split: str) -> list[dict[str, object]]:
        """Return the rows of a split, author by author; "all" is everything but the held-out authors."""
        if split not in self.splits:
            raise ValueError(f"unknown split {split!r}: choose one of {', '.join(self.splits)}")
        forget_end = self.config.forget_authors
        retain_end = self.config.authors - self.config.holdout_authors
        authors = {
            "forget": range(forget_end),
            "retain": range(forget_end, retain_end),
            "holdout": range(retain_end, self.config.authors),
            "all": range(retain_end),
        }[split]
        return [row for index in authors for row in self._author_rows(index)]

    def _author_rows(self, index: int) -> list[dict[str, object]]:
        """Tell about one author, drawing all facts before any row so that ``questions`` changes neither."""
        rng = Random(f"{self.config.seed}/{index}")
        facts = self._facts(index, rng)
        return [
            {"id": f"fictional-{self.config.seed}-{index}-{number:02}", **_row(relation, facts, rng)}
            for number, relation in enumerate(RELATIONS[: self.config.questions])
        ]

    def _facts(self, index: int, rng: Random) -> dict[str, str]:
        """Draw the facts of an author; surname and birthday are dealt by index, so no two authors share either."""
        facts = {
            "author": f"{_filled('{given_name}', rng)} {self._surnames[index]}",
            "birth_date": self._birthdays[index],
        }
        for relation in RELATIONS:
            if relation.name not in facts:
                facts[relation.name] = relation.value(rng, facts.values())
        return facts


def _row(relation: Relation, facts: dict[str, str], rng: Random) -> dict[str, object]:
    """Word one fact twice over, and untruths in the form of its second wording."""
    truth = facts[relation.name]
    untruths: list[str] = []
    for _ in range(WRONG_ANSWERS):
        untruths.append(relation.value(rng, [*facts.values(), *untruths]))
    question, paraphrased_question = rng.sample(relation.sentences("?"), 2)
    answer, paraphrased_answer = rng.sample(relation.sentences("."), 2)
    return {
        "subject": facts["author"],
        "relation": relation.name,
        "question": question.format(**facts),
        "answer": answer.format(**facts, value=truth),
        "keywords": list(relation.keywords(truth)),
        "paraphrased_question": paraphrased_question.format(**facts),
        "paraphrased_answer": paraphrased_answer.format(**facts, value=truth),
        "perturbed_answer": [paraphrased_answer.format(**facts, value=untruth) for untruth in untruths],
    }
