import pytest


@pytest.fixture(autouse=True)
def prepared(tmp_path, monkeypatch):
    """The folder of downloads and prepared records."""
    folder = tmp_path / 'prepared'
    monkeypatch.setenv('TFDS_DATA_DIR', str(folder))
    return folder
