"""Words as numbers, and combats as rows of both opponents' features (chapter 3)."""

import doctest
import os
import re
from pathlib import Path

import preprocessing
from labkit import data
from labkit.paths import ROOT
from preprocessing import (
    POKEMON_TYPES,
    encode_integers,
    encode_multi_hot,
    join_combats,
    second_wins,
    standardize,
)

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder

MIRROR = Path(os.environ.get("LABS_MIRROR", ROOT.parent / "shared" / "data"))
few = settings(max_examples=25, deadline=None, derandomize=True, database=None)
types = st.lists(
    st.tuples(st.sampled_from(POKEMON_TYPES), st.sampled_from([*POKEMON_TYPES, None, np.nan])),
    min_size=1,
    max_size=30,
)


def make_types(rows):
    return pd.DataFrame(rows, columns=["Type 1", "Type 2"], index=range(5, 5 + len(rows)))


def make_pokemon():
    return pd.DataFrame({"HP": [10.0, 20.0, 30.0], "Speed": [1.0, 2.0, 3.0]}, index=[1, 2, 7])


def make_combats():
    pairs = {"First_pokemon": [1, 7, 2], "Second_pokemon": [7, 1, 1], "Winner": [7, 7, 1]}
    return pd.DataFrame(pairs, index=[10, 11, 12])


def test_examples_in_the_docstrings():
    finder = doctest.DocTestFinder()
    for function in (encode_integers, encode_multi_hot):
        (test,) = finder.find(function, globs=vars(preprocessing))
        assert doctest.DocTestRunner().run(test) == doctest.TestResults(0, 2)


# -------------------------------------------------------------------------------- encoding


@few
@given(types)
def test_codes_are_those_of_scikit_learn(rows):
    table = make_types(rows)
    before = table.copy(deep=True)
    words = [*POKEMON_TYPES, "empty"]
    filled = table.astype("object").fillna("empty")
    integers = encode_integers(table, POKEMON_TYPES)
    expected = OrdinalEncoder(categories=[words] * 2).fit_transform(filled)
    np.testing.assert_array_equal(integers, expected)
    hot = encode_multi_hot(table, POKEMON_TYPES)
    both = OneHotEncoder(categories=[words] * 2, sparse_output=False).fit_transform(filled)
    np.testing.assert_array_equal(hot, both[:, :19] + both[:, 19:])
    pd.testing.assert_frame_equal(table, before)
    for made in (integers, hot):
        pd.testing.assert_index_equal(made.index, table.index)
    assert list(hot) == words
    assert set(integers.dtypes) == {np.dtype("int64")}


def test_codes_of_the_book():
    codes = encode_integers(make_types([("Bug", "Water"), ("Grass", None)]), POKEMON_TYPES)
    assert codes.to_numpy().tolist() == [[0, 17], [9, 18]]
    assert list(POKEMON_TYPES) == sorted(POKEMON_TYPES)
    assert len(POKEMON_TYPES) == 18


def test_one_column_is_one_hot_and_the_order_of_two_is_lost():
    hot = encode_multi_hot(make_types([("Fire", None)])[["Type 1"]], POKEMON_TYPES)
    assert hot.to_numpy().sum() == hot.loc[5, "Fire"] == 1
    rows = make_types([("Grass", "Poison"), ("Poison", "Grass"), ("Fire", "Fire")])
    hot = encode_multi_hot(rows, POKEMON_TYPES)
    np.testing.assert_array_equal(hot.loc[5], hot.loc[6])
    assert hot.loc[7, "Fire"] == 2


def test_every_kind_of_missing_value_and_of_column():
    for nothing in (None, np.nan, pd.NA, "empty"):
        assert encode_integers(make_types([("Bug", nothing)]), POKEMON_TYPES).loc[5, "Type 2"] == 18
    table = make_types([("Bug", None), ("Fire", "Bug")])
    for kind in ("object", "str", "category"):
        codes = encode_integers(table.astype(kind), ("Bug", "Fire"))
        assert codes.to_numpy().tolist() == [[0, 2], [1, 0]]


@pytest.mark.parametrize("encode", [encode_integers, encode_multi_hot])
def test_an_unknown_category_is_named_with_column_and_row(encode):
    table = make_types([("Fire", None), ("Fire", "Glass"), ("Glass", None)])
    with pytest.raises(ValueError, match=r"column 'Type 1', row 7: Glass is none of Bug, .*empty"):
        encode(table, POKEMON_TYPES)
    with pytest.raises(ValueError, match="column 'Type 2', row 6: Glass"):
        encode(table.iloc[:2], POKEMON_TYPES)
    twice = table.set_axis([1, 1, 1])
    with pytest.raises(ValueError, match="column 'Type 2', row 1: Glass"):
        encode(twice.iloc[:2], POKEMON_TYPES)
    with pytest.raises(ValueError, match="not all different"):
        encode(table, ("Fire", "Fire"))
    with pytest.raises(ValueError, match="not all different"):
        encode(table, ("Fire", "empty"))
    with pytest.raises(ValueError, match="no rows"):
        encode(table.iloc[:0], POKEMON_TYPES)


# --------------------------------------------------------------------------------- combats


def test_both_opponents_stand_side_by_side():
    combats, pokemon = make_combats(), make_pokemon()
    rows = join_combats(combats, pokemon)
    assert rows.dtype == np.float32
    assert rows.tolist() == [[10, 1, 30, 3], [30, 3, 10, 1], [20, 2, 10, 1]]
    np.testing.assert_array_equal(join_combats(combats, pokemon.iloc[::-1]), rows)
    np.testing.assert_array_equal(join_combats(combats.drop(columns="Winner"), pokemon), rows)
    won = second_wins(combats)
    assert won.dtype == np.float32
    assert won.tolist() == [1, 0, 1]


@pytest.mark.parametrize(("column", "other"), [("First_pokemon", 0), ("Second_pokemon", 3)])
def test_a_missing_pokemon_is_named_with_column_and_row(column, other):
    combats = make_combats()
    combats.loc[11, column] = other
    with pytest.raises(ValueError, match=f"column '{column}', row 11: {other} is the number of no"):
        join_combats(combats, make_pokemon())


def test_join_refuses_tables_that_cannot_be_right():
    combats, pokemon = make_combats(), make_pokemon()
    with pytest.raises(ValueError, match="lack the column 'Second_pokemon'"):
        join_combats(combats[["First_pokemon"]], pokemon)
    with pytest.raises(ValueError, match="same number twice"):
        join_combats(combats, pokemon.set_axis([1, 1, 7]))
    with pytest.raises(ValueError, match="'Speed' has missing"):
        join_combats(combats, pokemon.replace({"Speed": {2.0: np.nan}}))
    with pytest.raises(ValueError, match="'HP' is not numeric"):
        join_combats(combats, pokemon.astype({"HP": "str"}))
    with pytest.raises(ValueError, match="no rows"):
        join_combats(combats.iloc[:0], pokemon)


def test_winners_that_cannot_be_right_are_named_with_column_and_row():
    combats = make_combats()
    with pytest.raises(ValueError, match="lack the column 'Winner'"):
        second_wins(combats.drop(columns="Winner"))
    with pytest.raises(ValueError, match="column 'Winner', row 12: 7 is none of the two"):
        second_wins(combats.assign(Winner=7))
    combats.loc[11] = [2, 2, 2]
    with pytest.raises(
        ValueError, match="column 'Second_pokemon', row 11: 2 fights against itself"
    ):
        second_wins(combats)


# -------------------------------------------------------------------- the data that ships


@pytest.fixture(params=["pokemon_simulated", "pokemon"])
def tables(request):
    """Return Pokémon and combats: what is bundled, and the original where a mirror has it."""
    if request.param == "pokemon_simulated":
        return tuple(data.table(request.param, f"{file}.csv") for file in ("pokemon", "combats"))
    if not (MIRROR / "pokemon" / "combats.csv").exists():
        pytest.skip("no mirror with the original tables")
    return tuple(pd.read_csv(MIRROR / "pokemon" / f"{file}.csv") for file in ("pokemon", "combats"))


def test_tables_have_one_schema_and_can_be_joined(tables):
    pokemon, combats = tables
    assert list(pokemon) == [
        *("#", "Name", "Type 1", "Type 2", "HP", "Attack", "Defense", "Sp. Atk", "Sp. Def"),
        *("Speed", "Generation", "Legendary"),
    ]
    assert list(combats) == ["First_pokemon", "Second_pokemon", "Winner"]
    assert len(pokemon) == 800
    assert pokemon["Type 2"].isna().sum() == 386
    pokemon = pokemon.set_index("#")
    numbers = pokemon.loc[:, "HP":"Legendary"].astype("float64")
    hot = encode_multi_hot(pokemon[["Type 1", "Type 2"]], POKEMON_TYPES)
    rows = join_combats(combats, standardize(numbers)[0].join(hot))
    assert rows.shape == (len(combats), 54)
    assert second_wins(combats).shape == (len(combats),)


def test_the_laws_that_the_lab_relies_on(tables):
    pokemon, combats = tables
    speed = pokemon.set_index("#")["Speed"]
    first, second = (speed.loc[combats[f"{n}_pokemon"]].to_numpy() for n in ("First", "Second"))
    won = second_wins(combats)
    assert won[first == second].mean() > 0.9
    assert 0.93 < ((second >= first) == won).mean() < 0.95
    pairs = combats.groupby(["First_pokemon", "Second_pokemon"])["Winner"].nunique()
    assert pairs.max() == 1


def test_the_bundled_pokemon_are_the_original_ones():
    if not (MIRROR / "pokemon" / "pokemon.csv").exists():
        pytest.skip("no mirror with the original table")
    original = pd.read_csv(MIRROR / "pokemon" / "pokemon.csv", index_col="#")
    bundled = data.table("pokemon_simulated", "pokemon.csv").set_index("#")
    columns = bundled.columns.drop(["Name", "Legendary"])
    differ = (bundled[columns].fillna("") != original[columns].fillna("")).any(axis=1)
    assert list(bundled.index[differ]) == [712, 713, 751, 752]  # two pairs of forms, exchanged
    assert (bundled["Legendary"] != original["Legendary"]).sum() == 10
    for name in ("Venusaur", "Charizard", "Blastoise"):
        assert list(bundled.index[bundled["Name"] == name]) == list(
            original.index[original["Name"] == name]
        )


def test_the_card_tells_how_the_combats_were_made():
    cards = (data.DATASETS / "README.md").read_text(encoding="utf-8")
    (card,) = re.findall(r"\n## pokemon_simulated\n(.*?)(?=\n## |\Z)", cards, re.DOTALL)
    assert "simulated" in card.lower()
    assert "seed 0" in card
