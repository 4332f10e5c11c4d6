import os

import pytest


@pytest.fixture(scope="session", autouse=True)
def data_home(tmp_path_factory):
    """A temporary cache folder: no test reads or writes the user's."""
    folder = tmp_path_factory.mktemp("skmm_data")
    before = os.environ.get("SKMM_DATA_HOME")
    os.environ["SKMM_DATA_HOME"] = str(folder)
    yield folder
    if before is None:
        del os.environ["SKMM_DATA_HOME"]
    else:
        os.environ["SKMM_DATA_HOME"] = before
