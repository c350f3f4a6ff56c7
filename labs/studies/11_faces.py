"""Lab 11: the book's networks at 64 pixels on 9,000 faces; what they draw, and whether they copy.

The photos come from `LABS_MIRROR`, and none is kept in the result: only what the generator drew,
and how far it is from them.
"""

import base64
import io

from labkit import data

import numpy as np
import PIL.Image

LAB = "11_gan"
CASES = [{"seed": 0}]
EPOCHS, BATCH_SIZE, EVERY = 30, 32, 100  # an epoch has 56 steps of the generator
LEARNING_RATE = 2e-4  # the book's 0.0001 is for nine times as many steps
CROP, SIZE = 54, 64  # the copies have half the size: the book's 108 pixels are 54


def measure(definitions, settings):
    """Return pictures of generated faces, and distances to the nearest of the training faces.

    The distances are lists, one number a face, of generated faces, of faces held out and of
    training faces shifted by one pixel; by pixels, and by features.
    """
    run, tile = definitions["run"], definitions["tile"]
    parts = definitions["tfds"].load(
        "celeba", split=["train[:90%]", "train[90%:]"], data_dir=data.tfds_dir("celeba")
    )
    train, held_out = (definitions["image_array"](part, CROP, SIZE) for part in parts)
    wgan, history, grids = definitions["train_wgan"](
        "faces", train, EPOCHS, EVERY, width=64, learning_rate=LEARNING_RATE, batch_size=BATCH_SIZE
    )
    place = run.log_dir / "models" / "faces.keras"  # in the work folder, not in the repository
    place.parent.mkdir(parents=True, exist_ok=True)
    wgan.average.save(place)

    latents = np.random.default_rng(run.seed).normal(
        size=(len(held_out), definitions["LATENT_DIM"])
    )
    sets = {
        "generated": definitions["sample"](wgan.average, latents),
        "held out": held_out,
        "copies, shifted": np.roll(train[: len(held_out)], 1, axis=2),
    }
    stages = np.unique(np.geomspace(1, len(grids) - 1, 6).round().astype(int))
    strip = np.concatenate([grids[stage][:SIZE] for stage in stages])
    steps, lite = int(wgan.optimizer.iterations), definitions["make_features"]()
    return {
        "steps": steps,
        "images_per_second": definitions["CRITIC_STEPS"] * BATCH_SIZE * steps / history.seconds,
        "grid": encoded(tile(sets["generated"][:100])),
        "strip": encoded(strip),
        "strip_steps": [int(EVERY * stage) for stage in stages],
        "nearest_pixels": ways(definitions, definitions["pixels"], train, sets),
        "nearest_features": ways(
            definitions, lambda images: definitions["features"](lite, images), train, sets
        ),
    }


def ways(definitions, describe, train, sets):
    """Return the distance of each image of each set to the nearest training image, as lists."""
    known = describe(train)
    return {
        name: [round(float(way), 4) for way in definitions["nearest"](describe(images), known)[0]]
        for name, images in sets.items()
    }


def encoded(picture):
    """Return a picture as JPEG in letters, in a list: lists stay out of the progress line."""
    stream = io.BytesIO()
    PIL.Image.fromarray(picture).save(stream, "jpeg", quality=88)
    return [base64.b64encode(stream.getvalue()).decode()]
