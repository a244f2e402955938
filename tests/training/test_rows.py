from crystalvae.training.rows import append_row, read_rows, truncate_rows


def test_the_header_survives_a_truncation_to_nothing(tmp_path):
    path = tmp_path / "metrics.csv"
    truncate_rows(path, 0)
    assert not path.exists()
    for step in (10, 20):
        append_row(path, {"epoch": step // 10, "step": step})
    truncate_rows(path, 10)
    assert [row["step"] for row in read_rows(path)] == ["10"]
    truncate_rows(path, 5)
    truncate_rows(path, 5)
    append_row(path, {"epoch": 1, "step": 10})
    assert read_rows(path) == [{"epoch": "1", "step": "10"}]


def test_a_row_that_was_cut_off_is_dropped(tmp_path):
    path = tmp_path / "metrics.csv"
    for step in (10, 20):
        append_row(path, {"epoch": 1, "step": step, "loss": 0.5})
    path.write_text(path.read_text()[:-8])
    truncate_rows(path, 20)
    assert [row["step"] for row in read_rows(path)] == ["10"]
