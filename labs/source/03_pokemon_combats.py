# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Lab 3 · Pokémon combats: yes or no, and words as numbers
#
# After this lab you can
#
# - turn one output of a network into a probability, and compute its loss, binary cross-entropy, by hand;
# - say when a loss must be told `from_logits`, and what goes wrong otherwise;
# - give words to a network: integer, one-hot and multi-hot codes, and a code for "missing";
# - look for the law behind the data before you build: who moves first, does the order matter?
# - improve a network one idea at a time, and test whether each idea pays.
#
# **Chapter 3** of the book. **Needs** lab 2 and the set-up of the README, no GPU, and no internet
# connection for `quick`. {{cost}}

# %% tags=["setup"]
import labkit
from labkit import compare, data, figures, schedules
from preprocessing import POKEMON_TYPES, encode_integers, encode_multi_hot, join_combats, second_wins, split_rows, standardize  # fmt: skip
import keras, numpy as np, pandas as pd, tensorflow as tf
from keras import layers

run = labkit.start("03_pokemon_combats")

# %% [markdown]
# ## 1. Four ways to learn
#
# | | the network is given | it learns to | examples |
# |---|---|---|---|
# | *supervised* | inputs and right answers | give the answer | house prices (lab 2), combats (here), photos (lab 4) |
# | *unsupervised* | inputs alone | find structure: groups, fewer dimensions | customers alike, compression |
# | *semi-supervised* | many inputs, few answers | give the answer | medical images, where answers cost a doctor's time |
# | *reinforcement* | an environment that answers actions with rewards | act so that the reward grows | games, robots |
#
# This lab is supervised again, but the answer is no longer a number: it is **yes or no**.
# Two Pokémon fight; will the second one win?

# %% [markdown]
# ## 2. One output, two answers
#
# The network ends in a single number $z$, which may be anything (a *logit*). The sigmoid turns it into
# a probability, $p = \sigma(z) = 1/(1+e^{-z})$. With no hidden layer, $z = w \cdot x + b$, this is
# *logistic regression*: one neuron.
#
# What should a wrong probability cost? Write $y = 1$ for yes and $y = 0$ for no. **Binary
# cross-entropy** is minus the natural logarithm of the probability that the network gave to the true
# answer:
#
# $$\mathrm{BCE} = -\frac1N \sum_{i=1}^N \big[\, y_i \ln p_i + (1 - y_i) \ln (1 - p_i) \,\big].$$

# %% tags=["nbval-check-output"]
answers = np.array([1.0, 1.0, 0.0, 0.0])
guesses = np.array([0.9, 0.4, 0.2, 0.999])

given_to_the_truth = np.where(answers == 1, guesses, 1 - guesses)
cost = -np.log(given_to_the_truth)
print("given to the truth:", given_to_the_truth.round(3))
print("cost of each:      ", cost.round(3))
print(f"by hand {cost.mean():.4f}, Keras {keras.losses.BinaryCrossentropy()(answers, guesses):.4f}")

# %% [markdown]
# The last guess was sure and wrong: it alone costs more than the three others together. **Before you run
# the next cell:** what is the most that the *squared* error can charge for one guess?

# %%
figure, panels = figures.axes(1, 2, width=4.2)
figures.draw(panels[0], lambda p: -np.log(p), 0.003, 1, label="cross-entropy, −ln p")
figures.draw(panels[0], lambda p: (1 - p) ** 2, 0.003, 1, label="squared error, (1 − p)²")
panels[0].set(xlabel="probability p, true answer: yes", ylabel="loss")
sigmoid = lambda z: 1 / (1 + np.exp(-z))  # noqa: E731
figures.draw(panels[1], lambda z: sigmoid(z) - 1, -8, 8, label="cross-entropy")
slope = lambda z: 2 * (sigmoid(z) - 1) * sigmoid(z) * (1 - sigmoid(z))  # noqa: E731
figures.draw(panels[1], slope, -8, 8, label="squared error")
panels[1].set(xlabel="logit z, true answer: yes", ylabel="slope of the loss in z")
for panel in panels:
    panel.legend()
figures.show(
    figure,
    "Left: sure and wrong costs at most 1 in squares, without limit in cross-entropy. Right: the slopes.",
)

# %% [markdown]
# The right panel is the reason why classifiers use cross-entropy. Learning follows the slope, and at
# $z = -8$ the network is wrong and sure of it. Cross-entropy then pulls with all its force; the
# squared error hardly pulls at all, because the sigmoid is flat there. By the chain rule the slope of
# the cross-entropy in $z$ is simply $p - y$:

# %% tags=["nbval-check-output"]
z, yes = tf.Variable([-8.0, -2.0, 0.0, 2.0]), tf.ones(4)
with tf.GradientTape(persistent=True) as tape:
    p = tf.sigmoid(z)
    cross_entropy = tf.reduce_sum(-tf.math.log(p))
    squares = tf.reduce_sum((1 - p) ** 2)
print("p − y        ", np.round(p - yes, 4))
print("cross-entropy", np.round(tape.gradient(cross_entropy, z), 4))
print("squared error", np.round(tape.gradient(squares, z), 4))

# %% [markdown]
# > **Note on the book.** It says that binary cross-entropy lies between 0 and 1. It has no upper
# > limit, as the example and the figure show; that is its strength. In its cross-entropy for several
# > classes, the sum must run over the *classes* (lab 4).
#
# ### 2.1 `from_logits`
#
# A loss must know what it is given: a probability (the model ends in a sigmoid; Keras' default), or a
# logit (it does not; say `from_logits=True`). Logits are exact: for $z = 200$ the probability is 1 in
# floating point, and from that number alone no loss can see how wrong it is. (Keras helps where it
# can: if a sigmoid made the probability, its losses go back to the logit behind it. So we hand over bare
# numbers here.)

# %% tags=["nbval-check-output"]
from_p = keras.losses.BinaryCrossentropy()
from_z = keras.losses.BinaryCrossentropy(from_logits=True)
no = np.array([0.0], "float32")
for z in (3.0, 200.0):
    logit = np.array([z], "float32")
    p = np.asarray(keras.ops.sigmoid(logit))
    print(f"z = {z:5.1f}: from p {from_p(no, p):6.2f}, from z {from_z(no, logit):6.2f}")

# %% [markdown]
# Two mistakes are possible. **Logits to a loss that expects probabilities:** what lies outside [0, 1]
# is cut off there, its slope is 0, and nothing warns you. Both answers below are wrong, and only one
# of the two losses would mend them:

# %% tags=["nbval-check-output"]
logits = tf.Variable([[-2.0], [3.0]])  # the true answers are yes and no
for from_logits in (False, True):
    loss = keras.losses.BinaryCrossentropy(from_logits=from_logits)
    with tf.GradientTape() as tape:
        value = loss(tf.constant([[1.0], [0.0]]), logits)
    slope = tape.gradient(value, logits).numpy().ravel()
    print(f"from_logits={from_logits!s:5} size of the slopes {np.abs(slope).round(3)}")

# %% [markdown]
# **Probabilities to a loss that expects logits:** the sigmoid is taken *twice*, and no answer can be
# surer than $\sigma(1) = 0.73$ for yes and $\sigma(0) = 0.5$ for no. (Keras warns, and uses the logit,
# where the probability comes straight from its own sigmoid; otherwise it cannot know.)

# %% tags=["nbval-check-output"]
once = keras.ops.sigmoid(np.array([-9.0, 0.0, 9.0], "float32"))
print("sigmoid once ", np.round(once, 3), "\nsigmoid twice", np.round(keras.ops.sigmoid(once), 3))

# %% [markdown]
# ### 2.2 The threshold
#
# To say yes or no we compare $p$ with a *threshold*, usually 0.5 (that is $z > 0$). In sections 2 to
# 4, **$p$ is the probability that the second Pokémon wins**; $p > 0.5$ means it does. From 5.2 on, some
# networks are asked whether the *slower* one wins; section 6 turns their answer back.
# (The book's theory part has it the other way round from its own program.) Where one kind of error
# is worse, as with an illness that must not be missed, another threshold is right.

# %% [markdown]
# ## 3. Words as numbers
#
# A Pokémon is of one or two of 18 *types*: Fire, Water, Grass … A network needs numbers.
#
# **Integers.** Bug is 0, Dark is 1, …, Water is 17. For *ordinal* words, those with an order, this keeps it (and
# claims that the steps are equal): fog is light,
# medium or heavy, 0, 1, 2. For *nominal* words, without one, it tells the network something false: that Dark lies
# between Bug and Dragon, and that Bug and Water are far apart.
#
# **One-hot.** One input for each word, and a single 1 among zeros. No order, every pair equally far
# apart. The price is more inputs. For a Pokémon with two types, the two codes can be added
# (*multi-hot*).
#
# **Missing** is an answer, too: a single-type Pokémon has no second one. So it gets a
# code of its own, `empty`, rather than a made-up type.

# %% tags=["nbval-check-output"]
three = pd.DataFrame(
    {"Type 1": ["Grass", "Fire", "Water"], "Type 2": ["Poison", "Flying", None]},
    index=["Venusaur", "Charizard", "Blastoise"],
)
print(encode_integers(three, POKEMON_TYPES), end="\n\n")
hot = encode_multi_hot(three, POKEMON_TYPES)
print(hot.loc[:, hot.any()].astype(int))

# %% tags=["nbval-check-output"]
single = pd.DataFrame({"Type 1": ["Bug", "Dark", "Water"]})
for name, code in {"integer": encode_integers, "one-hot": encode_multi_hot}.items():
    bug, dark, water = code(single, POKEMON_TYPES).to_numpy("float64")
    distances = [np.linalg.norm(bug - other) for other in (dark, water)]
    print(f"{name}: Bug to Dark {distances[0]:.2f}, Bug to Water {distances[1]:.2f}")

# %% [markdown]
# A word that is not on the list must not slip through as a wrong number:

# %% tags=["nbval-check-output"]
try:
    encode_multi_hot(pd.DataFrame({"Type 1": ["Fire", "Glass"]}), ("Fire", "Grass", "Water"))
except ValueError as error:
    print("ValueError:", error)

# %%
figures.source(encode_multi_hot)

# %% [markdown]
# ## 4. Experiment 1 · Integer or one-hot?
#
# ### 4.1 Prepare the data
#
# 800 Pokémon with their types and numbers, and combats: first, second, winner. `standard` uses the
# book's 50,000 combats, from a challenge on Kaggle. `quick` uses combats that we **simulated** by a rule
# of our own, between the same Pokémon: what you see there is like the original, but not the original.

# %%
name = run.scale(quick="pokemon_simulated", standard="pokemon", full="pokemon")
origin = run.scale(quick="simulated combats", standard="original combats", full="original combats")
pokemon = data.table(name, "pokemon.csv").set_index("#")
combats = data.table(name, "combats.csv")
print(f"{len(combats):,} {origin}")
pokemon.head(4)

# %%
combats.head(3)

# %% tags=["nbval-check-output"]
print(
    pokemon["Type 1"].nunique(),
    "types;",
    pokemon["Type 2"].isna().sum(),
    "of",
    len(pokemon),
    "without a second",
)
print(pokemon["Type 2"].value_counts().head(4).to_dict())

# %% [markdown]
# Before building anything, look for a law. A natural guess: the faster one wins.

# %%
y = second_wins(combats)
speed = pokemon["Speed"]
first, second = (combats[f"{side}_pokemon"] for side in ("First", "Second"))
lead = speed.loc[second].to_numpy() - speed.loc[first].to_numpy()
edges = [-np.inf, *range(-95, 0, 10), -0.5, 0.5, *range(5, 100, 10), np.inf]
share = pd.Series(y).groupby(pd.cut(lead, edges)).agg(["mean", "size"])
figure, (panel,) = figures.axes(width=6)
middle = np.clip([span.mid for span in share.index], -100, 100)
panel.plot(middle, share["mean"], marker="o", markersize=4)
panel.set(ylabel="share won by the second")
panel.set_xlabel("speed of the second minus speed of the first (ends: 95 and more)")
figures.show(figure, f"Share won by the second, by difference in speed ({origin}).")

# %%
faster_wins = (lead >= 0) == y
print(
    f"equal speed: {(lead == 0).sum():,} combats, the second wins {y[lead == 0].mean():.1%} of them"
)
print(
    f'the rule "the faster one wins, at equal speed the second": right in {faster_wins.mean():.1%}'
)

# %% [markdown]
# This simple rule is the bar that a network has to clear. A result without such a *baseline* says
# little: anyone gets most of these combats right. (Is a larger lead safer? Look at both ends of the
# curve.)
#
# Now the inputs. Numbers are standardised over all 800 Pokémon: what a Pokémon is like is known
# before any combat, so no result leaks. The book's two inputs:
#
# - *integer*: both type codes, divided by 19 as in the book (so the largest is 18/19), and eight
#   numbers: 10 for each Pokémon, 20 in all;
# - *one-hot*: the same eight numbers, and the multi-hot code of 19: 27 for each, 54 in all.
#
# (We standardise *Legendary*, too; the book leaves it 0 or 1.)

# %%
types = pokemon[["Type 1", "Type 2"]]
numbers, scaler = standardize(pokemon.loc[:, "HP":"Legendary"].astype("float64"))
integer = (encode_integers(types, POKEMON_TYPES) / 19).join(numbers)
multi_hot = numbers.join(encode_multi_hot(types, POKEMON_TYPES))
inputs = {
    "integer": (join_combats(combats, integer), y),
    "one_hot": (join_combats(combats, multi_hot), y),
}

# %% tags=["nbval-check-output"]
print({name: x.shape[1] for name, (x, _) in inputs.items()})

# %%
figures.source(join_combats)

# %% [markdown]
# > **Note on the book.** It sets no seed and has only one split. We deal training, validation and test
# > combats (60, 20 and 20 %) several times and compare within each split, as in lab 2. And its two
# > models differ not only in the code: 54 inputs also mean more weights than 20. It prints accuracies
# > such as 0.9466 followed by %; 94.66 % is meant.
#
# ### 4.2 Build and train
#
# Three networks: logistic regression (one neuron, on the one-hot input), and the book's network with
# either input: layers of 64, 64, 64 and 16, each with ReLU and dropout of 30 %, then one neuron.


# %% tags=["definition"]
def make_mlp(n_inputs, widths, dropout_rate, name=None):
    """Return dense ReLU layers with dropout, then one sigmoid: n_inputs numbers -> probability."""
    stack = [keras.Input((n_inputs,))]
    for width in widths:
        stack += [layers.Dense(width, activation="relu"), layers.Dropout(dropout_rate)]
    return keras.Sequential([*stack, layers.Dense(1, activation="sigmoid")], name=name)


def make_logistic(n_inputs):
    """Return a single neuron with a sigmoid."""
    return make_mlp(n_inputs, (), 0.0)


def make_book(n_inputs):
    """Return the book's network."""
    return make_mlp(n_inputs, (64, 64, 64, 16), 0.3)


# %% tags=["nbval-check-output"]
for n_inputs in (20, 54):
    print(n_inputs, "inputs:", f"{make_book(n_inputs).count_params():,} parameters")

# %% [markdown]
# The recipe is ours (the book: batches of 64, 200 epochs, a constant rate of 0.001, and the epoch
# with the best validation accuracy): Adam, whose learning rate climbs for a fifth of the steps and
# then falls to zero along a cosine. Then no epoch has to be chosen: the last one counts.


# %%
def train(name, model, x, y, rows, epochs, batch_size, peak):
    """Compile and fit a model on the training rows; return its history."""
    train_rows, validation_rows, _ = rows
    steps = epochs * -(-len(train_rows) // batch_size)
    model.compile(
        keras.optimizers.Adam(schedules.one_cycle(peak, steps)),
        loss="binary_crossentropy", metrics=["accuracy"],
        jit_compile=run.jit_compile, steps_per_execution=16,
    )  # fmt: skip
    return model.fit(
        x[train_rows], y[train_rows], verbose=0, batch_size=batch_size, epochs=epochs,
        validation_data=(x[validation_rows], y[validation_rows]), validation_batch_size=2000,
        callbacks=run.callbacks(name, data=(x[train_rows], y[train_rows])),
    ).history  # fmt: skip


def accuracy_on(model, x, y, rows):
    """Return for each row whether the model is right."""
    p = model.predict(x[rows], batch_size=2000, verbose=0)[:, 0]
    return (p > 0.5) == y[rows]


# %% [markdown]
# **Predict first:** the faster-wins rule needs one comparison. Can one neuron learn it? And will the
# one-hot code gain a little or a lot?
#
# (We tried our recipes on splits 0 and 1, so these are left out. The other splits deal the *same* combats
# anew: this protects against the luck of a split, not fully against our having seen the data.)

# %%
splits = range(2, 2 + run.scale(quick=2, standard=5, full=10))
epochs, batch_size = run.scale(quick=(16, 128), standard=(120, 256), full=(120, 256))
accuracies = {"faster_wins": [], "logistic": [], "integer": [], "one_hot": []}
histories, models = {}, {}
recipes = {"logistic": (make_logistic, "one_hot"), "integer": (make_book, "integer"), "one_hot": (make_book, "one_hot")}  # fmt: skip
for seed in splits:
    rows = split_rows(len(combats), seed=seed)
    accuracies["faster_wins"].append(faster_wins[rows[2]].mean())
    for name, (make, code) in recipes.items():
        keras.utils.set_random_seed(run.seed + seed)
        models[name] = make(inputs[code][0].shape[1])
        share = 4 if name == "logistic" else 1  # one neuron is soon done
        histories[name] = train(
            f"{name}-{seed}", models[name], *inputs[code], rows, epochs // share, batch_size, 2e-3
        )
        accuracies[name].append(accuracy_on(models[name], *inputs[code], rows[2]).mean())
    print(f"split {seed}:", {name: round(values[-1], 4) for name, values in accuracies.items()})

# %% [markdown]
# ### 4.3 Show the results

# %%
figures.curves(
    {f"{name}, {part}": {"accuracy": histories[name][key]}
     for name in ("integer", "one_hot")
     for part, key in (("training", "accuracy"), ("validation", "val_accuracy"))},
    ["accuracy"], f"Accuracy of the book's network with either code, epoch by epoch, last split ({origin}).",
)  # fmt: skip

# %% [markdown]
# A validation curve *above* the training curve is no mistake: dropout makes it harder to answer while
# training, and is switched off for validation.

# %%
book_values = {name: run.book[f"accuracy_{name}"] for name in ("integer", "one_hot")}
book_values = run.scale(quick={}, standard=book_values, full=book_values)  # of the original combats
figures.dots(
    accuracies, "accuracy on test combats", book=book_values,
    caption=f"Accuracy of each model on each split, the mean, and the book's value if known ({origin}).",
)  # fmt: skip

# %% [markdown]
# With only two splits (`quick`) the margin is so wide that nearly nothing can be told apart; look at the
# signs.

# %%
one_third = 0.2 / 0.6  # test combats / training combats
compare.paired(accuracies, "integer", one_third, higher_is_better=True).round(4)

# %% [markdown]
# **What happened, and why.** The book's conclusion, one-hot beats integer, is read off the line
# `one_hot` of this table. A likely reason: with integers the network must first undo the false order;
# to single out Ghost, number 8 of 0 to 18, it has to make a line rise and fall again. One-hot hands it
# each type on a switch of its own. One neuron, in turn, can only add up: "Ghost *against* Normal" is a product of two
# inputs, and takes a hidden layer. It could express the rule of speed, yet stays well below it. A likely reason:
# cross-entropy is not accuracy. To limit the cost of upsets at a large lead, the weight on speed stays moderate, and near
# equal speed other inputs tip the answer. (In `quick`, four epochs are also too few.)
#
# In `quick` the combats are simulated, under another rule, and few. There one-hot is *not* better, and
# neither network beats the rule of speed: to know more than one comparison takes more data, or the ideas
# that follow.

# %% [markdown]
# ## 5. Experiment 2 · One idea at a time
#
# ### 5.1 Look at the data again
#
# **Does the order matter?** If it did not, every combat could be used twice, the second time with
# the opponents swapped (a cheap *augmentation*), or the symmetry could be built in, with
# $z = f(a, b) - f(b, a)$. The data can tell, since some pairs fought in both orders:

# %%
pair = ["First_pokemon", "Second_pokemon"]
repeated = combats.groupby(pair)["Winner"].agg(["size", "nunique"]).query("size > 1")
print(
    f"{len(repeated):,} pairs fought again in the same order: {(repeated['nunique'] > 1).sum()} with another winner"
)
once = combats.drop_duplicates(pair)
both = once.merge(once, left_on=pair, right_on=pair[::-1], suffixes=("", "_swapped"))
changed = both[both["Winner"] != both["Winner_swapped"]]
print(f"{len(both) // 2:,} pairs fought in both orders: {len(changed) // 2} with another winner")
second_won = changed["Winner"] == changed["Second_pokemon"]
gap = (speed.loc[changed[side]].to_numpy() for side in pair)
uneven = np.subtract(*gap) != 0
print(f"in these, the second of the two won {second_won.mean():.0%} of the time")
print(f"{uneven.sum() // 2} of them differ in speed; there it was {second_won[uneven].mean():.0%}")

# %% [markdown]
# Two facts. No luck is involved: the same pair in the same order always ends in the same way. And
# **the order matters**: to be second is an advantage, not only at equal speed. Some swapped copies would
# carry a wrong answer, and $f(a, b) - f(b, a)$ cannot express the advantage either, not without a
# constant added, and then it is the same for all pairs. Ask the data before you use a symmetry.
#
# **When does the slower one win?** The rule of speed is right so often that the rest is worth a map of
# its own:


# %%
def draw_types(panel, values, xlabel, ylabel):
    """Draw a map of shares, types by types; what is missing stays white."""
    picture = panel.imshow(values, vmin=0, vmax=1)
    panel.set(xticks=range(18), yticks=range(18), xlabel=xlabel, ylabel=ylabel)
    panel.set_xticklabels(POKEMON_TYPES, rotation=90, fontsize=7)
    panel.set_yticklabels(POKEMON_TYPES, fontsize=7)
    panel.grid(False)
    panel.figure.colorbar(picture, ax=panel, label="share won by the slower", shrink=0.8)


# %%
fights = pd.DataFrame({
    "faster": types["Type 1"].loc[np.where(lead >= 0, second, first)].to_numpy(),
    "slower": types["Type 1"].loc[np.where(lead >= 0, first, second)].to_numpy(),
    "upset": ~faster_wins,
})  # fmt: skip
upsets = fights.groupby(["faster", "slower"])["upset"].agg(["mean", "size"])
measured = upsets["mean"].where(upsets["size"] >= 10).unstack().reindex(POKEMON_TYPES)
figure, (panel,) = figures.axes(width=5.4, height=4.6)
draw_types(panel, measured, "first type of the slower", "first type of the faster")
figures.show(figure, f"Where the slower one wins; white: fewer than ten combats ({origin}).")

# %% [markdown]
# Most of the map is dark: speed decides. In the original combats the brightest cells are matches in
# which, in the games, the attack of the faster one has no effect at all, such as Psychic against Dark.
# Does it matter whether a type is a Pokémon's first or its second one?

# %%
faster = types.loc[np.where(lead >= 0, second, first)].reset_index(drop=True)
slower = types.loc[np.where(lead >= 0, first, second)].reset_index(drop=True)
slots = {}
for attack, defence in (("Psychic", "Dark"), ("Electric", "Ground"), ("Dragon", "Fairy")):
    slots[f"{attack} against {defence}"] = {
        f"{one} against {other}": (~faster_wins)[
            (faster[one] == attack) & (slower[other] == defence)
        ].mean()
        for one in types for other in types
    }  # fmt: skip
pd.DataFrame(slots).T.round(2)

# %% [markdown]
# In the original combats it does: the same two types count when both are the first ones, or both the
# second ones, and hardly otherwise. A code that adds up both types cannot express this. (The rule of the
# simulated combats is another one.)
#
# ### 5.2 Three ideas
#
# Each is added to those before it.
#
# 1. **Keep the types apart** (`apart`): the sum of two codes forgets which type is the first. Two one-hot
#    codes of 19 side by side remember it: 46 numbers for each Pokémon.
# 2. **The faster one first** (`faster_first`): we sort each pair by speed and ask: will the
#    slower one win? The network no longer has to find out who is faster. Who was second in the combat
#    stays as one more input, since the order matters.
# 3. **A layer for types** (`best`): a learned table with eight numbers for each pair (type of the attacker,
#    type of the defender; first and second types apart), looked up in both directions.
#
# All three use a wider network, with less dropout and fewer epochs than the book's. So that this change
# is not mistaken for an idea, the wide network also gets the old code: `wide`.


# %% tags=["definition"]
def faster_first(combats, speed):
    """Return the combats with the faster Pokémon first, and for each whether that was the second.

    At equal speed the second counts as the faster; `speed` is a Series by Pokémon.
    """
    pairs = combats[["First_pokemon", "Second_pokemon"]].to_numpy()
    first, second = (speed.loc[side].to_numpy() for side in pairs.T)
    swapped = second >= first
    pairs = np.where(swapped[:, None], pairs[:, ::-1], pairs)
    return combats.assign(First_pokemon=pairs[:, 0], Second_pokemon=pairs[:, 1]), swapped


# %% tags=["definition", "nbval-check-output"]
@keras.saving.register_keras_serializable("labs")
class TypeChart(layers.Layer):
    """Look up what an attacker's types do to a defender's: `size` numbers for every pair of types.

    Two inputs (batch, codes), the one-hot codes of the attacker and of the defender, -> (batch,
    size): the sum of the learned entries of every pair of types that meet.
    """

    def __init__(self, size=8, **options):
        super().__init__(**options)
        self.size = size

    def build(self, shapes):
        start = keras.initializers.RandomNormal(stddev=0.1)
        attacker, defender = (shape[-1] for shape in shapes)
        self.chart = self.add_weight((attacker, defender, self.size), start, name="chart")

    def call(self, codes):
        return keras.ops.einsum("bi,ijk,bj->bk", codes[0], self.chart, codes[1])

    def get_config(self):
        return super().get_config() | {"size": self.size}


layer = TypeChart()
print(layer((np.eye(38)[:3], np.eye(38)[3:6])).shape, f"{layer.count_params():,} parameters")


# %% tags=["definition"]
def make_wide(n_inputs):
    """Return a network with three hidden layers of 256."""
    return make_mlp(n_inputs, (256, 256, 256), 0.2)


def make_best(n_inputs, n_codes=38):
    """Return the wide network with a type chart, used for either side as the attacker.

    Its inputs: the faster, the slower (the last `n_codes` of each are its type codes), who was first.
    """
    inputs = keras.Input((n_inputs,))
    half = n_inputs // 2
    faster, slower = inputs[:, half - n_codes : half], inputs[:, 2 * half - n_codes : 2 * half]
    chart = TypeChart()
    hidden = layers.Concatenate()([inputs, chart([faster, slower]), chart([slower, faster])])
    for _ in range(3):
        hidden = layers.Dense(256, activation="relu")(hidden)
        hidden = layers.Dropout(0.2)(hidden)
    return keras.Model(inputs, layers.Dense(1, activation="sigmoid")(hidden))


# %%
codes = [encode_multi_hot(types[[name]], POKEMON_TYPES).add_prefix(f"{name} ") for name in types]
apart = numbers.join(codes)
ordered, swapped = faster_first(combats, speed)
inputs["apart"] = (join_combats(combats, apart), y)
sorted_pairs = np.column_stack([join_combats(ordered, apart), swapped]).astype("float32")
inputs["faster_first"] = (sorted_pairs, second_wins(ordered))  # 1: the slower one wins
print({name: x.shape for name, (x, _) in inputs.items()})

# %% [markdown]
# *Gradient boosting* (lab 2) stands beside the networks, once with the inputs of `apart`, and once,
# to be fair, with the sorted pairs that the best network gets.
#
# **Predict first:** which of the three ideas will gain most? Will sorting help the trees as well?

# %%
from sklearn.ensemble import HistGradientBoostingClassifier

recipes = {
    "wide": (make_wide, "one_hot"), "apart": (make_wide, "apart"),
    "faster_first": (make_wide, "faster_first"), "best": (make_best, "faster_first"),
}  # fmt: skip
boosted = {"boosting": "apart", "boosting_faster_first": "faster_first"}
epochs, batch_size = run.scale(quick=(10, 128), standard=(40, 256), full=(40, 256))
accuracies |= {name: [] for name in (*recipes, *boosted)}
for seed in splits:
    rows = split_rows(len(combats), seed=seed)
    for name, (make, code) in recipes.items():
        keras.utils.set_random_seed(run.seed + seed)
        models[name] = make(inputs[code][0].shape[1])
        histories[name] = train(
            f"{name}-{seed}", models[name], *inputs[code], rows, epochs, batch_size, 2e-3
        )
        accuracies[name].append(accuracy_on(models[name], *inputs[code], rows[2]).mean())
    for name, code in boosted.items():
        x, target = inputs[code]
        trees = HistGradientBoostingClassifier(
            max_iter=run.scale(quick=100, standard=1000, full=1000),
            early_stopping=False, random_state=run.seed,
        ).fit(x[rows[0]], target[rows[0]])  # fmt: skip
        accuracies[name].append(trees.score(x[rows[2]], target[rows[2]]))
    print(f"split {seed}:", {n: round(accuracies[n][-1], 4) for n in (*recipes, *boosted)})

# %% [markdown]
# ### 5.3 Show the results

# %%
figures.dots(
    {name: values for name, values in accuracies.items() if name != "logistic"},
    "accuracy on test combats",
    book=book_values,
    caption=f"From the rule of speed to the best network, and gradient boosting, same splits ({origin}).",
)  # fmt: skip

# %%
steps = ["one_hot", "wide", "apart", "faster_first", "best"]
gains = [
    compare.paired({a: accuracies[a], b: accuracies[b]}, a, one_third, higher_is_better=True)
    for a, b in zip(["integer", *steps], [*steps, "best"])
    if a != b
]
final = {name: accuracies[name] for name in ("best", *boosted)}
trees = compare.paired(final, "boosting_faster_first", one_third, higher_is_better=True)
sorting = {name: accuracies[name] for name in boosted}
sorting = compare.paired(sorting, "boosting", one_third, higher_is_better=True)
pd.concat([*gains, sorting, trees]).round(4)

# %%
run.record(**{f"accuracy_{name}": values for name, values in accuracies.items()})
for metric, better, worse in [
    ("accuracy_gain_one_hot", "one_hot", "integer"),
    ("accuracy_gain_best", "best", "boosting_faster_first"),
]:
    run.record(**{metric: list(np.subtract(accuracies[better], accuracies[worse]))})

# %% [markdown]
# **What happened, and why.** The first lines compare each network with the one before; then boosting
# with sorted pairs is compared with boosting without, and the best network and plain boosting with
# boosting on sorted pairs. Believe a gain only where the verdict says so. In the original combats, keeping the types apart
# gives back what the sum had lost; in `quick` (another rule, fewer combats) it gains nothing. The other two ideas add nothing to the data: sorting replaces a comparison
# that must be learned by one that is done, and the chart replaces a product of two inputs. Both are
# knowledge about these combats, found by looking at them.
#
# ### 5.4 Did it see the test combats before?
#
# Pairs are drawn at random, so some test pairs also fought, in one order or the other, in the
# training combats. Such a combat is no fair test. How many are there, and do they flatter the result? (The book does not
# ask. Compare the two accuracies printed below.)


# %% tags=["definition"]
def seen_before(train_combats, test_combats):
    """Return for each test combat whether the same two Pokémon met in training, in any order."""
    low_and_high = [
        np.sort(part[["First_pokemon", "Second_pokemon"]].to_numpy(), axis=1) @ [10_000, 1]
        for part in (train_combats, test_combats)
    ]
    return np.isin(low_and_high[1], low_and_high[0])


# %%
train_rows, _, test_rows = split_rows(len(combats), seed=splits[-1])
seen = seen_before(combats.iloc[train_rows], combats.iloc[test_rows])
right = accuracy_on(models["best"], *inputs["faster_first"], test_rows)
run.record(share_seen=seen.mean(), accuracy_best_new_pairs=right[~seen].mean())
print(f"{seen.mean():.1%} of the test pairs met in training ({origin})")
print(f"best network, last split: all {right.mean():.4f}, new pairs {right[~seen].mean():.4f}")

# %% [markdown]
# ## 6. The duel
#
# The book lets Venusaur (Grass), Charizard (Fire) and Blastoise (Water) fight. In the games Fire beats
# Grass, Grass beats Water and Water beats Fire. Look Pokémon up by *name*: numbers begin at 1, rows
# at 0, and the special forms (Mega …) stand in between.

# %% tags=["nbval-check-output"]
names = pokemon["Name"]
print("rows 3, 7, 12:", list(names.iloc[[3, 7, 12]]))
starters = ["Venusaur", "Charizard", "Blastoise"]
number = {name: int(names.index[names == name][0]) for name in starters}
print("their numbers:", number)
print("their speeds: ", speed.loc[list(number.values())].tolist())

# %% [markdown]
# | first, second | the book's probability that the second wins | its winner |
# |---|---|---|
# | Venusaur, Charizard | 1.0 | Charizard |
# | Charizard, Blastoise | 0.000000107 | Charizard |
# | Blastoise, Venusaur | 0.9999981 | Venusaur |
#
# > **Note on the book.** It takes the rows 3, 7 and 12, and so lets three Mega forms fight. Its
# > ranking, Charizard, Venusaur, Blastoise, is the order of *speed*, which the Mega forms share with the
# > ordinary ones; it does not remark that this contradicts the triangle of the games.


# %%
def probability_second(combats, table, speed):
    """Return the probability that the second one wins, by the best network, for each combat."""
    ordered, swapped = faster_first(combats, speed)
    x = np.column_stack([join_combats(ordered, table), swapped]).astype("float32")
    slower_wins = models["best"].predict(x, verbose=0)[:, 0]
    return np.where(swapped, 1 - slower_wins, slower_wins)


# %%
duels = pd.DataFrame([(a, b) for a in starters for b in starters if a != b], columns=pair)
p = probability_second(duels.replace(number), apart, speed)
winner = np.where(p > 0.5, duels["Second_pokemon"], duels["First_pokemon"])
duels.assign(probability_second=p.round(4), winner=winner)

# %% [markdown]
# Compare with the triangle of the games, and with the speeds. Which of the two does the network
# follow? A *what-if* answers better than a guess: we change one number, the speed of Blastoise, and
# leave everything else.

# %%
trial = np.arange(40, 161, 2)
blastoise = apart.loc[[number["Blastoise"]] * len(trial)].set_axis(1000 + trial)
column = list(numbers).index("Speed")
blastoise["Speed"] = (trial - scaler.mean_[column]) / scaler.scale_[column]
table = pd.concat([apart, blastoise])
speeds = pd.concat([speed, pd.Series(trial, index=blastoise.index)])
figure, (panel,) = figures.axes(width=6)
for opponent in ("Charizard", "Venusaur"):
    what_if = pd.DataFrame({pair[0]: number[opponent], pair[1]: blastoise.index})
    panel.plot(trial, probability_second(what_if, table, speeds), label=f"against {opponent}")
panel.set(xlabel="speed of Blastoise, if it were so", ylabel="probability that Blastoise wins")
panel.legend()
figures.show(
    figure, f"A what-if: the chance of Blastoise, as second, if it were faster ({origin})."
)

# %% [markdown]
# **What happened, and why.** Where Blastoise reaches the speed of its opponent, `faster_first` exchanges
# the two sides: the *place* of a jump is ours, its *size* was learned. Look at the map of 5.1 for
# Fire, Grass and Water: does the one with the better type win more often when it is slower, and how
# often? Compare with the cells without effect. The network learned the law of its data, not of the
# game. And be careful with Blastoise: in the original combats it never fights, so all that the network
# says about it, it concludes from others.

# %% [markdown]
# ## 7. Further · What has it learned, and how sure is it?
#
# Ask the best network about two *average* Pokémon that differ only in their type: every number is the
# mean, except that one is a little faster, and the slower one is second. Compare the pattern with that of the measured map, not the
# heights: there the leads are of every size, and there are second types.

# %%
size = len(POKEMON_TYPES)
average = pd.DataFrame(0.0, index=range(2 * size), columns=apart.columns)
for n, kind in enumerate([*POKEMON_TYPES, *POKEMON_TYPES]):
    average.loc[n, [f"Type 1 {kind}", "Type 2 empty"]] = 1.0
average.loc[: size - 1, "Speed"] = 0.2  # the first 18 are the faster ones, in standard deviations
grid = np.array([(a, size + b) for a in range(size) for b in range(size)])
ask = pd.DataFrame(grid, columns=pair)
learned = probability_second(ask, average, average["Speed"]).reshape(size, size)
figure, panels = figures.axes(1, 2, width=5.4, height=4.6)
for panel, values, who in zip(panels, (measured, learned), ("measured", "asked")):
    draw_types(panel, values, f"type of the slower ({who})", "type of the faster")
figures.show(
    figure,
    "Measured shares (left); what the network says of two average Pokémon of a single type, "
    f"the faster by 0.2 standard deviations (right; {origin}).",
)

# %% [markdown]
# A probability should mean something: of all combats to which a network gives 80 %, about 80 % should
# end so. It is then *calibrated*. The two networks were asked different questions; a point from few
# combats is uncertain.

# %%
from sklearn.calibration import calibration_curve

figure, (panel,) = figures.axes(width=4.6, height=3.6)
questions = {"one_hot": "one_hot: the second wins", "best": "best: the slower wins"}
for (name, question), code in zip(questions.items(), ("one_hot", "faster_first")):
    x, target = inputs[code]
    p = models[name].predict(x[test_rows], batch_size=2000, verbose=0)[:, 0]
    happened, said = calibration_curve(target[test_rows], p, n_bins=10)
    panel.plot(said, happened, marker="o", label=question)
panel.plot([0, 1], [0, 1], color="grey", linestyle=":", label="perfect")
panel.set(xlabel="probability that the network gave", ylabel="share that happened")
panel.legend()
figures.show(figure, f"Calibration on the test combats of the last split, in ten steps ({origin}).")

# %% [markdown]
# ## 8. Results
#
# Accuracy is the share of test combats predicted correctly: mean ± standard deviation over splits.
# `faster_wins` is the rule, `integer` and `one_hot` are the book's networks with our recipe, `wide` the
# wide network with the one-hot code, `apart` to `best` the three ideas. `faster_first`, `best` and
# `boosting_faster_first` say *who of the two wins* by way of speed, so their accuracies can be compared
# with the others. `gain` is a difference of two accuracies on the same split, one-hot minus
# integer, and best network minus boosting on the same sorted inputs; positive: better. `share_seen` is
# the share of the last split's test pairs that met in training, `best_new_pairs` the accuracy on the
# others. What has no number of the book is ours. In `quick`, all of them are about *simulated* combats.

# %%
print(f"book and standard run: original combats; this run: {origin}")
run.table()

# %% [markdown]
# ## 9. Exercises
#
# They need only the set-up cell. Each comes with a check that tells you what is not yet right.
#
# ### Exercise 1 · Binary cross-entropy
#
# Probabilities of exactly 0 or 1 would make the logarithm infinite: keep $p$ within
# $[10^{-7}, 1 - 10^{-7}]$ first, as Keras does.


# %% nbgrader={"grade": false, "grade_id": "binary_cross_entropy", "locked": false, "schema_version": 3, "solution": true, "task": false} tags=["exercise"]
def binary_cross_entropy(answers, p):
    """Return the mean binary cross-entropy; answers are 0 or 1, both arrays of shape (n,)."""
    ### BEGIN SOLUTION
    p = np.clip(p, 1e-7, 1 - 1e-7)
    return -np.mean(answers * np.log(p) + (1 - answers) * np.log(1 - p))
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "binary_cross_entropy_check", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false} tags=["exercise"]
with run.exercise(binary_cross_entropy) as check:
    half, one = np.array([0.5, 0.5]), np.array([1.0])
    check(
        binary_cross_entropy(np.array([0.0, 1.0]), half),
        np.log(2),
        "the logarithm is the natural one, and the result a mean",
    )
    check(binary_cross_entropy(one, np.array([0.2])), 1.609438, "a yes costs −ln p")
    check(binary_cross_entropy(1 - one, np.array([0.2])), 0.223144, "a no costs −ln(1 − p)")
    check(binary_cross_entropy(one, np.array([0.0])), 16.118096, "keep p away from 0 and 1 before the logarithm")  # fmt: skip

# %% [markdown]
# ### Exercise 2 · Multi-hot, with a place for "none"
#
# Encode one Pokémon. The vector has a place for each category, in their order, and one more, the
# last, for a type that is missing (`None`).


# %% nbgrader={"grade": false, "grade_id": "multi_hot", "locked": false, "schema_version": 3, "solution": true, "task": false} tags=["exercise"]
def multi_hot(types, categories):
    """Return the sum of the one-hot codes of `types`, a list of names or None, shape (n + 1,)."""
    ### BEGIN SOLUTION
    code = np.zeros(len(categories) + 1)
    for name in types:
        code[len(categories) if name is None else categories.index(name)] += 1
    return code
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "multi_hot_check", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false} tags=["exercise"]
with run.exercise(multi_hot) as check:
    categories = ["Fire", "Grass", "Poison"]
    answer = multi_hot(["Grass", "Poison"], categories)
    check(None if answer is None else np.shape(answer), (4,), "one place for each category and one for none")  # fmt: skip
    check(answer, [0, 1, 1, 0], "a 1 at the place of each type, in the order of the categories")
    check(multi_hot(["Fire", None], categories), [1, 0, 0, 1], "a missing type has a place of its own, the last")  # fmt: skip
    check(multi_hot(["Fire", "Fire"], categories), [2, 0, 0, 0], "codes are added: the same type twice is 2")  # fmt: skip

# %% [markdown]
# ### Exercise 3 · Accuracy from logits
#
# A network ends without a sigmoid. A probability above the threshold means yes. Which logit belongs
# to the threshold?


# %% nbgrader={"grade": false, "grade_id": "accuracy_from_logits", "locked": false, "schema_version": 3, "solution": true, "task": false} tags=["exercise"]
def accuracy_from_logits(answers, z, threshold=0.5):
    """Return the share of right answers; answers are 0 or 1, z are logits, both of shape (n,)."""
    ### BEGIN SOLUTION
    says_yes = z > np.log(threshold / (1 - threshold))
    return np.mean(says_yes == (answers == 1))
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "accuracy_from_logits_check", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false} tags=["exercise"]
with run.exercise(accuracy_from_logits) as check:
    yes, no = np.array([0.3, 2.0]), np.array([-0.1, -3.0])
    check(accuracy_from_logits(np.ones(2), yes), 1.0, "p > 0.5 means z > 0: compare logits with a logit")  # fmt: skip
    check(accuracy_from_logits(np.zeros(2), no), 1.0, "below z = 0 the answer is no, and a right no counts, too")  # fmt: skip
    truth, z = np.array([1, 1, 0, 0, 0]), np.array([*yes, *no, 4.0])
    check(accuracy_from_logits(truth, z), 0.8, "the share of right answers, yes or no")
    check(accuracy_from_logits(truth, z, 0.9), 0.4, "p > 0.9 means z > ln(0.9 / 0.1)")

# %% [markdown]
# **Try this, too:** train `make_book` on each *training* combat twice, the second time with the opponents
# swapped and the answer reversed. What happens to the accuracy, and which combats does it get wrong?
#
# ## 10. What to remember
#
# - Yes or no: one output, a sigmoid, binary cross-entropy with the natural logarithm. It has no upper
#   limit, and its slope in the logit is $p - y$.
# - A loss takes probabilities or logits: tell it which, and apply the sigmoid once.
# - Nominal words become one-hot or multi-hot codes, and "missing" is a word.
# - Know the baseline before you praise a network: here one comparison gets most combats right.
# - Ask the data whether a symmetry holds before you build it in.
# - Look rows up by name, not by position.
#
# **Read on.** Cox, *The Regression Analysis of Binary Sequences*, Journal of the Royal Statistical
# Society B 20, 1958 · Guo and Berkhahn, *Entity Embeddings of Categorical Variables*, 2016
# (arXiv:1604.06737) · Guo, Pleiss, Sun and Weinberger, *On Calibration of Modern Neural Networks*, 2017
# (arXiv:1706.04599) · Bradley and Terry, *Rank Analysis of Incomplete Block Designs*, Biometrika 39,
# 1952 (comparing two by $f(a) - f(b)$) · Nadeau and Bengio, *Inference for the Generalization Error*, 2003.

# %%
run.check()
