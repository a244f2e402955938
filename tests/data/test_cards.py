import functools
import http.server
import threading

import pytest

from crystalvae.data import cards
from crystalvae.data.cards import fetch, load_cards
from crystalvae.data.readers import read_structures
from crystalvae.data.readers.text import csv_rows
from crystalvae.errors import DataError


@pytest.fixture
def server(tmp_path):
    """Base URL of a local server for files in ``tmp_path / "www"``."""
    root = tmp_path / "www"
    root.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_args):
            pass

    handler = functools.partial(Quiet, directory=str(root))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_address[1]}", root
        httpd.shutdown()


@pytest.fixture
def card(monkeypatch, server):
    url, root = server
    (root / "train.csv").write_text("material_id,cif\n")
    entry = {"urls": {"train": f"{url}/train.csv"}, "sha256": {}}
    monkeypatch.setattr(cards, "load_cards", lambda: {"local": entry})
    return entry


def test_fetch_downloads_every_split(card, tmp_path):
    (path,) = fetch("local", tmp_path / "out")
    assert path.read_text() == "material_id,cif\n"
    assert not list((tmp_path / "out").glob("partial-*"))


def test_wrong_checksum_is_refused(card, tmp_path):
    card["sha256"]["train"] = "0" * 64
    with pytest.raises(DataError, match="checksum"):
        fetch("local", tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_a_download_that_broke_off_is_refused(card, tmp_path, monkeypatch):
    def cut(self, *arguments):
        self.send_response(200)
        self.send_header("Content-Length", "1000000")
        self.end_headers()
        self.wfile.write(b"material_id,cif\n")

    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "do_GET", cut)
    with pytest.raises(DataError, match="broke off"):
        fetch("local", tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_the_built_in_set_is_written_and_read_again(tmp_path):
    (path,) = fetch("prototypes", tmp_path)
    first = next(iter(read_structures(path)))
    assert first.error is None
    assert sum(1 for _ in csv_rows(path)) > 1000


def test_without_network_it_says_what_to_do(card, tmp_path):
    card["urls"]["train"] = "http://127.0.0.1:9/train.csv"
    with pytest.raises(DataError, match="crystalvae prepare"):
        fetch("local", tmp_path / "out")


def test_every_card_is_complete_and_has_its_page():
    from pathlib import Path

    root = Path(__file__).resolve().parents[2] / "datasets"
    for name, card in load_cards().items():
        for key in ("title", "source", "licence", "citation", "columns", "splits"):
            assert key in card, (name, key)
        assert (root / name / "README.md").read_text().startswith("# ")
