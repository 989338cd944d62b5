import numpy as np
import pytest

pytest.importorskip("torch")

from moesim.record.session import TEXT_SEED
from moesim.record.text import (
    DOMAINS,
    HELD_OUT,
    evaluation_text,
    is_for_evaluation,
    load_corpus,
    training_batch,
)

pytestmark = pytest.mark.lab

SOURCE = '''"""A module docstring that is long enough to be kept as English prose in the corpus, it says nothing."""


class Thing:
    """Short."""

    def double(self, number):
        """Return twice the number: this docstring is long enough to be kept, and so it must leave the code."""
        return 2 * number  # a comment stays
'''


def library(folder, names):
    for name in names:
        (folder / name).write_text(SOURCE.replace("Thing", name.removesuffix(".py").title()), encoding="utf-8")
    return load_corpus(folder)


def side(evaluation):
    return [f"mod{n}.py" for n in range(200) if is_for_evaluation(f"mod{n}.py") == evaluation][:3]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return library(tmp_path_factory.mktemp("library"), side(True) + side(False))


def test_docstrings_leave_the_code_and_become_prose(small):
    code, prose = (small.train[name].tobytes().decode() for name in ("python", "prose"))
    assert "return 2 * number  # a comment stays" in code
    assert "docstring" not in code
    assert "Return twice the number" in prose
    assert "Short." not in prose
    assert "a comment stays" not in prose


def test_a_source_file_is_on_one_side_only(small):
    for name in side(True):
        label = name.removesuffix(".py").title().encode()
        assert b"class " + label + b":" in small.evaluation["python"].tobytes()
        assert b"class " + label + b":" not in small.train["python"].tobytes()
    assert sum(is_for_evaluation(f"file{n}") for n in range(2_000)) == pytest.approx(200, abs=45)


def test_the_held_out_domain_is_never_trained_on(small):
    assert set(small.train) == set(DOMAINS) - set(HELD_OUT)
    assert set(small.evaluation) == set(DOMAINS)
    listing = small.evaluation["bytecode"].tobytes().decode()
    assert "RETURN_VALUE" in listing
    assert " at 0x" not in listing


def test_the_corpus_is_a_function_of_its_sources(small, tmp_path):
    again = library(tmp_path, side(True) + side(False))
    assert again.provenance() == small.provenance()
    other = library(tmp_path, [side(False)[0], f"x{side(False)[0]}"])
    assert other.provenance() != small.provenance()


def test_files_that_cannot_be_parsed_or_are_tests_are_left_out(small, tmp_path):
    (tmp_path / "latin.py").write_bytes(b"# caf\xe9\n")
    (tmp_path / "python2.py").write_text("print 'hello'\n")
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "test_it.py").write_text("marker = 1\n")
    corpus = library(tmp_path, side(True) + side(False))
    assert corpus.provenance() == small.provenance()


def test_evaluation_sequences_take_the_domains_in_turn_and_do_not_overlap(corpus):
    text = evaluation_text(corpus, 16, 64, seed=5)
    assert text.tokens.shape == (16, 64)
    assert text.domain.tolist() == [0, 1, 2, 3] * 4
    for domain, name in enumerate(DOMAINS):
        windows = corpus.evaluation[name][: 8_000 // 64 * 64].reshape(-1, 64)
        drawn = text.tokens[text.domain == domain]
        places = [np.flatnonzero((windows == one).all(axis=1)) for one in drawn]
        assert all(len(place) for place in places)
    np.testing.assert_array_equal(text.tokens, evaluation_text(corpus, 16, 64, seed=5).tokens)
    np.testing.assert_array_equal(text.tokens[:8], evaluation_text(corpus, 16, 64, seed=5).tokens[:8])
    assert (text.tokens != evaluation_text(corpus, 16, 64, seed=6).tokens).any()


def test_a_training_batch_is_cut_from_the_training_text_of_all_its_domains(corpus):
    batch = training_batch(corpus, 30, 32, np.random.default_rng(1))
    assert batch.shape == (30, 33)
    whole = {name: data.tobytes() for name, data in corpus.train.items()}
    sources = [{name for name, data in whole.items() if row.tobytes() in data} for row in batch]
    assert all(sources)
    assert set.union(*sources) == set(whole)


@pytest.mark.slow
def test_this_machine_has_enough_text_and_hardly_any_of_the_recorded_is_trained_on():
    corpus = load_corpus()
    assert all(data.size > 200_000 for data in corpus.train.values())
    assert all(data.size > 64 * 256 for data in corpus.evaluation.values())
    text = evaluation_text(corpus, 64, 256, TEXT_SEED)
    trained = b"".join(data.tobytes() for data in corpus.train.values())
    # The library repeats itself here and there: licences, grammar shown under two topics.
    assert sum(window.tobytes() in trained for window in text.tokens) <= 3
