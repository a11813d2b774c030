"""Recordings of texts spelt in tones, and a transcriber of them that is trained in seconds."""

import json

import numpy as np
import soundfile

RATE = 8000
TONES = {"a": 400.0, "b": 900.0, "c": 2000.0}


def sound_of(text, random):
    """60 to 90 ms of tone a letter, 30 ms of pause behind it, 100 ms for a space."""
    parts = []
    for letter in text:
        seconds = 0.1 if letter == " " else random.uniform(0.06, 0.09)
        time = np.arange(int(seconds * RATE)) / RATE
        tone = np.zeros(len(time)) if letter == " " else 0.3 * np.sin(2 * np.pi * TONES[letter] * time)
        parts += [tone, np.zeros(int(0.03 * RATE))]
    sound = np.concatenate(parts)
    return (sound + 0.003 * random.normal(size=len(sound))).astype(np.float32)


def write_tones(folder, count=40, seed=0, words=("ab", "ba", "cab", "c", "bac")):
    """x.wav and x.txt for each text; the texts."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    texts = []
    for i in range(count):
        text = " ".join(random.choice(words, random.integers(1, 4)))
        soundfile.write(folder / f"{i:03d}.wav", sound_of(text, random), RATE)
        (folder / f"{i:03d}.txt").write_text(text + "\n")
        texts.append(text)
    return texts


def write_manifest(path, folder):
    """A manifest of a folder of tones."""
    rows = [
        {"audio": str(wav), "text": wav.with_suffix(".txt").read_text().strip()} for wav in sorted(folder.glob("*.wav"))
    ]
    path.write_text("\n".join(map(json.dumps, rows)))


TRAINING = [
    *("--task", "transcribe", "--preset", "speech-small", "--quiet"),
    *("--set", "train.steps=120", "--set", "train.learning_rate=5e-3", "--set", "split.min_validation=2"),
]
