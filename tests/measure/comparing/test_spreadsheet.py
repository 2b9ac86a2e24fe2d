import csv
import io

import pandas as pd
import pytest

from rwkvlab.measure.comparing.spreadsheet import csv_bytes

FORMULAS = ["=1+1", '=HYPERLINK("http://x";"y")', "+1", "-1", "@SUM(A1)", " =1", "\t=1", "\r\n=1", "\x00=1"]
FORMULAS += ["\ufeff=1", "\u200b@a", "＝1", "\u3000－1"]
HARMLESS = ["a=1", "1-1", "", "NA", "nan", "null", "文言文", "a\nb", "a\rb", "a\r\nb", 'say "x", y; z', "\x00n", "a\tb"]
QUOTED = ["'", "'a", "''=1", "'=1"]


def test_every_text_comes_back_from_the_file():
    table = pd.DataFrame({"text": FORMULAS + HARMLESS + QUOTED}).assign(number=0.1, whole=7, right=True)
    data = csv_bytes(table)
    back = pd.read_csv(io.BytesIO(data), keep_default_na=False)
    back["text"] = back["text"].str.removeprefix("'")
    pd.testing.assert_frame_equal(back, table, check_dtype=False)
    assert data.startswith(b"\xef\xbb\xbf")  # or Excel takes it for the system's code page
    assert data.decode("utf-8-sig").startswith('"text","number","whole","right"\r\n')


@pytest.mark.parametrize("text", FORMULAS)
def test_no_cell_and_no_header_is_a_formula(text):
    table = pd.DataFrame({text: [text]})
    read = list(csv.reader(io.StringIO(csv_bytes(table).decode("utf-8-sig"), newline="")))
    assert read == [["'" + text], ["'" + text]] and list(table.columns) == [text]


@pytest.mark.parametrize("text", HARMLESS)
def test_other_texts_are_left_alone(text):
    read = list(csv.reader(io.StringIO(csv_bytes(pd.DataFrame({"a": [text]})).decode("utf-8-sig"), newline="")))
    assert read[1] == [text]


def test_numbers_stay_numbers_and_half_a_surrogate_is_escaped():
    data = csv_bytes(pd.DataFrame({"a": [-1.5], "b": ["\ud800"]}))
    assert data.decode("utf-8-sig") == '"a","b"\r\n-1.5,"\\ud800"\r\n'
