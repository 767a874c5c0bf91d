"""Files of the archives of time series, right and wrong."""

import numpy as np
import pytest

from experiments.data.time_series import read_time_series
from experiments.errors import UsageError

RIGHT = """% A set of two dimensions.
# Its series have different lengths.
@problemName Two
@timeStamps false
@missing true
@univariate false
@dimensions 2
@equalLength false
@classLabel true Standing walk-2

@data
# The first series.
1.5,?,-2e-1:4, 5 ,6:Standing
NaN,8:9,10:walk-2
"""
ONE = "@univariate true\n@classLabel true a b\n@data\n"
TWO = "@missing false\n@dimensions 2\n@equalLength true\n@seriesLength 3\n@classLabel true a b\n"


@pytest.fixture
def read(tmp_path):
    """Reads a file with this text."""

    def read(text: str):
        path = tmp_path / "Set_TRAIN.ts"
        path.write_text(text)
        return read_time_series(path)

    return read


def test_dimensions_lengths_missing_values_and_words(read):
    found = read(RIGHT)
    nan = np.nan
    np.testing.assert_array_equal(found.values[0], np.float32([[1.5, 4], [nan, 5], [-0.2, 6]]))
    np.testing.assert_array_equal(found.values[1], np.float32([[nan, 9], [8, 10]]))
    assert found.values[0].dtype == np.float32
    assert found.classes == ("Standing", "walk-2")
    assert found.labels.tolist() == [0, 1]


def test_values_as_targets_and_series_without_any(read):
    found = read("@targetLabel true\n@data\n1,2:3.25\n3,4:-1\n")
    assert found.classes is None
    assert found.labels.tolist() == [3.25, -1]
    found = read("@classLabel false\n@DATA\n1,2:3,4\n")
    assert found.labels is None
    assert found.values[0].tolist() == [[1, 3], [2, 4]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TWO + "@data\n1,2,3:a\n", "line 7: must have 2 dimensions between colons, then a colon"),
        (TWO + "@data\n1,2,3:1,2,3\n", "2 dimensions between colons, .* class; got 1 dimensions"),
        (ONE + "1,2:3,4:a\n", "line 4: must have 1 dimensions .* got 2 .* header @dimensions"),
        ("@targetlabel true\n@data\n1:2:3\n1:3\n", "line 4: .* colon and the value; got 1"),
        (
            "@classLabel false\n@data\n1:2\n1\n",
            "line 4: must have 2 dimensions between colons; got",
        ),
        (ONE + "1,two,3:a\n", r"line 4: value 2 of dimension 1 must be .* got 'two'. .* write \?"),
        (ONE + "1,,3:a\n", "value 2 of dimension 1 must be a finite number"),
        (ONE + "1,2?:a\n", r"value 2 of dimension 1 .* got '2\?'"),
        (ONE + "1_0:a\n", "value 1 of dimension 1 .* got '1_0'"),
        (ONE + "1,inf:a\n", "value 2 of dimension 1 .* got 'inf'"),
        (ONE + "1,1e39:a\n", "value 2 of dimension 1 .* got '1e39'"),
        (ONE + ":a\n", "value 1 of dimension 1 .* got ''"),
        (ONE + "1,2:c\n", r"line 4: the class .* one of @classLabel \(a, b\); got 'c'. Add it to"),
        (ONE + "1,2:\n", "the class after the last colon .* got ''"),
        ("@targetlabel true\n@data\n1:x\n", "line 3: the value after the last colon .* got 'x'"),
        ("@targetlabel true\n@data\n1:?\n", r"the value after the last colon .* got '\?'"),
        (TWO + "@data\n1,2,3:1,2:a\n", r"same number of values; got 2 and 3. Fill up .* with \?"),
        (TWO + "@data\n1,2:1,2:a\n", "must have 3 values .* got 2. .* @equalLength false"),
        ("@equalLength true\n@classLabel true a b\n@data\n1,2:a\n1:a\n", "line 5: must have 2 val"),
        (TWO + "@data\n1,2,?:1,2,3:a\n", "no missing values, as @missing is false; got 1 of them"),
        (ONE + "?,?:a\n", "must have a value; got missing values alone. Remove the line"),
        ("@timeStamps true\n@data\n", r"line 1: @timeStamps must be false.* got True|got true"),
        ("@missing maybe\n@data\n", "line 1: @missing must be true or false; got 'maybe'"),
        ("@dimensions two\n@data\n", "@dimensions must be a whole number above 0; got 'two'"),
        ("@seriesLength 0\n@data\n", "@seriesLength must be a whole number above 0; got '0'"),
        ("@classLabel true a a\n", "must name two or more classes, each of them once; got a a"),
        ("@classLabel true\n", "must name two or more classes, each of them once; got none"),
        ("@univariat true\n", "line 1: Unknown header 'univariat': .* Did you mean 'univariate'"),
        ("1,2:a\n", "line 1: must be a header, @NAME VALUE, .* got '1,2:a'.* add @data above it"),
        ("@missing\n@data\n", "line 1: must be a header, @NAME VALUE"),
        ("@missing false\n", "has no line @data, after which the series begin: add it"),
        (ONE, "has no series after the line @data: copy the file again"),
    ],
)
def test_what_is_wrong_is_named_with_a_remedy(read, text, message):
    with pytest.raises(UsageError, match=message):
        read(text)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"No file .*Set_TEST\.ts"):
        read_time_series(tmp_path / "Set_TEST.ts")
