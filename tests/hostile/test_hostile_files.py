"""Every hostile file is refused by kind, file, field and remedy, with nothing run, in bounds of time and memory."""

import pytest
import rows_models
import rows_paths
import rows_pickle
import rows_safetensors
import rows_states
import rows_zip
from corpus import judge

TABLES = (rows_pickle, rows_zip, rows_safetensors, rows_states, rows_models, rows_paths)
CASES = [case for table in TABLES for case in table.CASES]


def _id(case):
    return f"{case.row}-{case.name[:40].encode('ascii', 'replace').decode()}"


@pytest.mark.timeout(90)
@pytest.mark.parametrize("case", CASES, ids=_id)
def test_a_hostile_file_is_refused(case, tmp_path):
    judge(case, tmp_path)
