from pathlib import Path

from headrace.demo.training import keep


def test_a_kept_model_replaces_the_one_before_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    model = tmp_path / "run" / "model.safetensors"
    model.parent.mkdir()
    at = tmp_path / "cache" / "demo" / "model.safetensors"
    for content in (b"first", b"second"):
        model.write_bytes(content)
        keep(model, at)
        assert at.read_bytes() == content
    assert list(at.parent.iterdir()) == [at]
    assert model.is_file()
