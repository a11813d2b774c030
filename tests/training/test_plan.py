import pytest

from crnn.training.config import TrainConfig, make_plan


def plan(batches=10, num_train=100, num_validation=20, **options):
    return make_plan(TrainConfig(**options), batches=batches, num_train=num_train, num_validation=num_validation)


def test_epochs_are_exact():
    assert plan(epochs=3).steps == 30


def test_steps_are_rounded_up_to_whole_epochs():
    assert plan(steps=25).epochs == 3
    assert plan(steps=25, accumulate=3).epochs == 7  # 4 updates an epoch


@pytest.mark.parametrize(
    ("batches", "epochs"),
    [(1, 100), (10, 60), (50, 10), (5000, 1)],  # raised to 100 updates, 60 epochs, lowered to 500 updates, one epoch
)
def test_length_follows_from_the_data(batches, epochs):
    assert plan(batches, min_steps=100, max_steps=600 if batches == 10 else 500).epochs == epochs


def test_validation_stays_cheaper_than_training():
    assert plan(epochs=50).evaluate_every == 1
    assert plan(epochs=1000).evaluate_every == 10
    assert plan(epochs=50, num_validation=1000).evaluate_every == 10
    assert plan(epochs=50, num_validation=1000, evaluate_every=1).evaluate_every == 1


@pytest.mark.parametrize(("examples", "size"), [(1, 8), (67, 8), (270, 16), (1000, 64), (100_000, 64)])
def test_batch_size_grows_with_the_data(examples, size):
    assert TrainConfig().batch_size_for(examples) == size
    assert TrainConfig(batch_size=3).batch_size_for(examples) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 1, "steps": 1}, "give one of them"),
        ({"epochs": 0}, "train.epochs=0; expected at least 1"),
        ({"learning_rate": 0.0}, "train.learning_rate=0.0; expected more than 0"),
        ({"learning_rate": float("nan")}, "train.learning_rate=nan"),
        ({"ema_decay": 1.0}, "train.ema_decay=1.0; expected 0 <= ema_decay < 1"),
        ({"min_steps": 10, "max_steps": 5}, "min_steps=10 is more than max_steps=5"),
        ({"seed": -1}, "train.seed=-1; expected 0 or more"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**options)
