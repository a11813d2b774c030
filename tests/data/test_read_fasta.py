"""FASTA files, folders of them, and other sequences of letters: what is read, and what is said about bad places."""

import gzip

import numpy as np
import pytest

import crnn
from crnn.alphabets import DNA, PROTEIN, RNA, recognise
from crnn.errors import ConfigError, DataError
from crnn.model import Inputs


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def letters(data, i):
    return "".join(data.vocabulary[j] for j in data[i].load())


def test_files_of_a_folder_are_classes(tmp_path):
    write(tmp_path / "positives.fasta", ">a one\nACG\nTTA\n\n>b\nGG GG\n")
    with gzip.open(tmp_path / "negatives.fa.gz", "wt") as file:
        file.write("; a comment\n>a\nTTTTT\n")
    write(tmp_path / "README.txt", "not a sequence")
    data = crnn.read(tmp_path)
    assert [(e.id, e.target, e.length) for e in data] == [
        ("negatives.fa.gz:a", "negatives", 5),
        ("positives.fasta:a", "positives", 6),
        ("positives.fasta:b", "positives", 4),
    ]
    assert letters(data, 1) == "ACGTTA"
    assert data.kind == "symbols"
    assert data.vocabulary == DNA.vocabulary
    assert data[1].where == f"{tmp_path / 'positives.fasta'} line 1 (>a)"
    assert "classes from files: negatives, positives (dna, recognised by its letters)" in data.source
    assert data[0].load().dtype == np.int64


def test_sub_folders_are_classes_and_top_folders_splits(tmp_path):
    for split in ("train", "test"):
        for name in ("enhancer", "other"):
            write(tmp_path / split / name / "a.txt", ">x\nACGTAC\n")
    data = crnn.read(tmp_path)
    assert sorted({(e.split, e.target) for e in data}) == [
        ("test", "enhancer"), ("test", "other"), ("train", "enhancer"), ("train", "other")]  # fmt: skip


def test_files_in_split_folders_are_classes_too(tmp_path):
    for split in ("train", "test"):
        for name in ("enhancer", "other"):
            write(tmp_path / split / f"{name}.txt", ">x\nACGTAC\n")
    assert sorted({(e.split, e.target) for e in crnn.read(tmp_path)})[0] == ("test", "enhancer")


def test_a_list_of_files_is_one_set_of_classes(tmp_path):
    paths = [write(tmp_path / name, ">x\nACGT\n") for name in ("yes.fa", "no.fa")]
    assert [e.target for e in crnn.read(paths)] == ["yes", "no"]


def test_train_and_test_files_are_splits(tmp_path):
    write(tmp_path / "train.fasta", ">x label=a\nACGT\n>y label=b\nACG\n")
    write(tmp_path / "test.fasta", ">x label=b\nACGT\n")
    data = crnn.read(tmp_path)
    assert sorted((e.split, e.target) for e in data) == [("test", "b"), ("train", "a"), ("train", "b")]
    assert "classes from headers" in data.source


def test_headers_say_class_split_and_group(tmp_path):
    path = write(
        tmp_path / "x.fasta",
        ">p1 family=f1 kind=a SET=train VALIDATION=True\nACDEFGH\n>p2 family=f2 kind=b SET=test\nKLMNP\n",
    )
    data = crnn.read(path, target="kind", group="family")
    assert [(e.id, e.target, e.group, e.split) for e in data] == [
        ("p1", "a", "f1", "validation"),
        ("p2", "b", "f2", "test"),
    ]
    with pytest.raises(DataError, match=r"target 'kidn': no header says it; did you mean 'kind'\?"):
        crnn.read(path, target="kidn")
    with pytest.raises(DataError, match=r"group 'clan': no header says it"):
        crnn.read(path, group="clan")


def test_a_pattern_reads_headers(tmp_path):
    path = write(tmp_path / "x.fasta", ">p1|1|training more words\nACGT\n>p2|0|testing\nACGT\n")
    data = crnn.read(path, pattern="{id}|{label}|{split}")
    assert [(e.target, e.split) for e in data] == [("1", "train"), ("0", "test")]
    with pytest.raises(DataError, match=r"x.fasta line 1 \(>p1\|1\|training\): name does not match the pattern"):
        crnn.read(path, pattern="{id}#{label}", on_bad="fail")


def test_a_table_gives_labels_by_id(tmp_path):
    path = write(tmp_path / "x.fasta", ">p1\nACGT\n>p2\nACG\n>p3\nAC\n")
    table = write(tmp_path / "x.csv", "id,class,family\np1,a,f\np2,b,g\n")
    data = crnn.read(path, labels=table, group="family", on_bad="skip")
    assert [(e.target, e.group) for e in data] == [("a", "f"), ("b", "g")]
    assert [str(p) for p in data.problems] == [
        f"{path} line 5 (>p3): stands not in {table}; add it there, or remove it"
    ]


def test_lower_case_gaps_and_stops_are_read_by_rule_and_said(tmp_path):
    path = write(tmp_path / "x.fasta", ">a\nMKac-F*\n>b\nMK.LW\n>c\nMKLWE\n")
    data = crnn.read(path)
    assert [letters(data, i) for i in range(3)] == ["MKACF", "MKLW", "MKLWE"]
    said = [str(p) for p in data.problems]
    assert all(p.level == "warning" for p in data.problems)
    assert said == [
        f"2 of 3 sequences, the first {path} line 1 (>a): gap marks (- and .) were removed; is this an alignment?",
        f"{path} line 1 (>a): the stop mark (*) at the end was removed",
        f"{path} line 1 (>a): lower case (soft-masked?) is read as upper case",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (">a\n>b\nMKLWE\n", r"line 1 \(>a\): the sequence is empty, expected protein residues"),
        (">a\n---\n>b\nMKLWE\n", r"line 1 \(>a\): the sequence is empty"),
        (">a\nMK*LW\n>b\nMKLWE\n", r"line 1 \(>a\): found a stop mark \(\*\) at position 3, expected it at the end"),
        (">a\nMK1LW7\n>b\nMKLWE\n", r"found '1' at position 3 and 1 more, expected protein residues ACDEFGHIKLMNPQRS"),
        ("MKL\n>b\nMKLWE\n", r"line 1: found 'MKL' before the first header, expected a line that begins with '>'"),
        ("\n", r"found an empty file, expected sequences"),
    ],
)
def test_bad_places_are_named(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        crnn.read(write(tmp_path / "x.fasta", text))


def test_repeated_ids_are_numbered(tmp_path):
    data = crnn.read(write(tmp_path / "x.fasta", ">a\nACG\n>a\nACT\n"))
    assert [e.id for e in data] == ["a", "a (2)"]


@pytest.mark.parametrize(
    ("texts", "alphabet"),
    [
        (["ACGTN", "acgtR"], DNA),
        (["ACGUU"], RNA),
        (["MKLV"], PROTEIN),
        (["GATTACA"], DNA),
        (["ACGDHSKVWRYMB"], PROTEIN),
    ],
)
def test_alphabets_are_recognised(texts, alphabet):
    assert recognise(texts) is alphabet


def test_an_alphabet_can_be_given(tmp_path):
    path = write(tmp_path / "x.fasta", ">a\nGATTACA\n")
    assert crnn.read(path, alphabet="protein").vocabulary == PROTEIN.vocabulary
    assert letters(crnn.read(path, alphabet="rna"), 0) == "GAUUACA"
    with pytest.raises(ConfigError, match=r"alphabet: found 'dan'; did you mean 'dna'\?"):
        crnn.read(path, alphabet="dan")
    protein = Inputs.of(crnn.read(path, alphabet="protein"))
    assert protein.alphabet == "protein"
    with pytest.raises(DataError, match="found 15 symbols A C G T R"):
        protein.check(crnn.read(path))


def test_ambiguous_symbols_are_fractions():
    assert DNA.fractions[DNA.vocabulary.index("R")].tolist() == [0.5, 0, 0.5, 0]  # purine: A or G
    assert DNA.fractions[DNA.vocabulary.index("N")].tolist() == [0.25] * 4
    for alphabet in (DNA, RNA, PROTEIN):
        np.testing.assert_allclose(alphabet.fractions.sum(1), 1, atol=1e-6)


def test_complements_are_those_of_the_standard():
    # Cornish-Bowden 1985, table 1: complement of each symbol
    expected = dict(zip("ACGTRYSWKMBDHVN", "TGCAYRSWMKVHDBN", strict=True))
    assert {DNA.vocabulary[i]: DNA.vocabulary[j] for i, j in enumerate(DNA.complement)} == expected
    assert RNA.complement.tolist() == DNA.complement.tolist()
    assert PROTEIN.complement is None


def test_a_table_with_a_sequence_column(tmp_path):
    path = write(tmp_path / "x.csv", "id,sequence,label\na,ACGT,x\nb,GGT,y\nc,,y\n")
    data = crnn.read(path, on_bad="skip")
    assert [(e.id, e.target, letters(data, i)) for i, e in enumerate(data)] == [("a", "x", "ACGT"), ("b", "y", "GGT")]
    assert str(data.problems[0]).startswith(f"{path} row 4: the sequence is empty")
    other = write(tmp_path / "y.csv", "site,label\nACGT,x\nGGT,y\n")
    assert crnn.read(other, alphabet="dna").vocabulary == DNA.vocabulary


def test_arff_of_single_letters_and_of_text(tmp_path):
    head = "@relation r\n@attribute Instance_name string\n"
    nominal = "@attribute 'a1' { A, C, G, T}\n@attribute a2 {A,C,N}\n@attribute Class {EI, N}\n@data\n"
    path = write(tmp_path / "x.arff", f"{head}{nominal}one,A,C,EI\ntwo,T,N,N\n")
    data = crnn.read(path)
    assert [(e.id, e.target, letters(data, i)) for i, e in enumerate(data)] == [("one", "EI", "AC"), ("two", "N", "TN")]
    text = write(tmp_path / "y.arff", "@relation r\n@attribute s string\n@attribute c {a,b}\n@data\nACGT,a\n'GG',b\n")
    assert [e.target for e in crnn.read(text)] == ["a", "b"]


def test_a_second_file_labels_every_residue(tmp_path):
    chains = write(tmp_path / "chains.fasta", ">a\nMKACF\n>b\nMK-LW*\n>c\nMKL\n>d\nMK\n>e\nMKW\n")
    labels = write(
        tmp_path / "chains.ss",
        ">a SET=train\nHHECC\n>b SET=test\nCCEEC?\n>c SET=train VALIDATION=True\nHHHH\n>e SET=train\nH?C\n",
    )
    data = crnn.read(chains, labels=labels, on_bad="skip")
    assert [(e.id, e.split, e.target.codes.tolist()) for e in data] == [
        ("a", "train", [2, 2, 1, 0, 0]),
        ("b", "test", [0, 0, 1, 0]),
        ("e", "train", [2, -1, 0]),
    ]
    assert data[0].target.names == ("C", "E", "H")
    errors = [str(p) for p in data.problems if p.level == "error"]
    assert errors == [
        f"{chains} line 7 (>d): stands not in {labels}; add it there, or remove it",
        f"{chains} line 5 (>c): found 4 labels for 3 symbols; expected one a symbol",
    ]


def test_a_mask_beside_the_labels_leaves_residues_out(tmp_path):
    chains = write(tmp_path / "sequences.fasta", ">a\nMKACF\n>b\nMK\n")
    labels = write(tmp_path / "labels.fasta", ">a\nHHECC\n>b\nCE\n")
    write(tmp_path / "mask.fasta", ">a\n01110\n>b\n111\n")
    data = crnn.read(chains, labels=labels, on_bad="skip")
    assert [e.target.codes.tolist() for e in data] == [[-1, 2, 1, 0, -1]]
    assert "mask from" in data.source
    assert str(data.problems[0]) == (
        f"{labels} line 3 (>b): found 3 marks of {tmp_path / 'mask.fasta'} for 2 labels; expected one a label"
    )
