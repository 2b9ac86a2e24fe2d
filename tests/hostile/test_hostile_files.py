"""Every hostile file is refused by kind, file, field and remedy, with nothing run, in bounds of time and memory."""

import pytest
import rows_pickle
import rows_safetensors
import rows_zip
from corpus import judge

CASES = [*rows_pickle.CASES, *rows_zip.CASES, *rows_safetensors.CASES]


def _id(case):
    return f"{case.row}-{case.name[:40].encode('ascii', 'replace').decode()}"


@pytest.mark.timeout(90)
@pytest.mark.parametrize("case", CASES, ids=_id)
def test_a_hostile_file_is_refused(case, tmp_path):
    judge(case, tmp_path)
