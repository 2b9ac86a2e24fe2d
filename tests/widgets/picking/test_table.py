import html5lib
import pytest

from rwkvlab.widgets.picking.table import Table, brief

COLUMNS = (("name", False), ("size", True), ("note", False))


@pytest.fixture
def table():
    table = Table()
    table.fill(COLUMNS, [(("zero", "", ""), ""), (("文言文", "3", ""), ""), (("<b>", "", "x"), "does <not> fit")], 1)
    return table


def test_columns_in_which_nothing_is_said_are_left_out(table):
    assert [column["name"] for column in table.columns] == ["name", "size"]
    assert table.columns[0]["width"] == 6  # of a terminal: Chinese characters take two each
    assert [row["cells"] for row in table.rows] == [["zero", ""], ["文言文", "3"], ["<b>", ""]]
    assert (table.shown, table.chosen) == ([0, 1, 2], 1)


def test_reasons_have_a_place_where_no_row_can_be_chosen():
    table = Table()
    table.fill(COLUMNS, [(("a", "", ""), "broken")], -1)
    assert len(table.columns) == 2 and table.rows[0]["off"] == "broken"


def test_a_click_is_told_and_chooses_nothing_by_itself(table):
    told = []
    table.on_choose(told.append)
    for content in ({"choose": 2, "version": 1}, {"choose": 0, "version": 0}, {"choose": -1, "version": 1}, {}, None):
        table._handle_custom_msg(content, [])
    assert told == [2] and table.chosen == 1


def test_the_page_without_a_kernel_is_sound_html_and_counts_what_is_left_out(table):
    page = table.html()
    html5lib.HTMLParser(strict=True).parseFragment(page)
    assert "文言文" in page and "&lt;b&gt;" in page and "does &lt;not&gt; fit" in page and page.count("<tr") == 4
    table.fill(COLUMNS, [((str(number), "", ""), "") for number in range(60)], 0)
    assert "10 more" in table.html() and table.html().count("<tr") == 51
    table.shown = [3]
    assert table.html().count("<tr") == 2


def test_the_files_of_the_table_load_nothing_and_set_text_only(table):
    script, style = str(table._esm), str(table._css)
    assert "textContent" in script and "aria-selected" in script and "--jp-" in style
    for text in (script, style):
        assert "innerHTML" not in text and "http" not in text and "import" not in text and "eval" not in text


def test_a_reason_is_shortened_by_the_name_in_front():
    assert brief("'a b.pth': H=3 (model 2)") == "H=3 (model 2)"
    assert brief("'a': ") == "'a': " and brief("no quotes: here") == "no quotes: here" and brief("") == ""
