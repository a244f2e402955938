import csv

import pytest


@pytest.fixture
def model_dir(tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


def table(path):
    with (path / "table.csv").open() as file:
        return list(csv.DictReader(file))
