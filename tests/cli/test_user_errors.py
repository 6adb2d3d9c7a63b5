"""A user's mistake ends in one clear line and a code that is not 0, at once and without torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import ROOT, Workplace, row, write_tsv
from vlmeval.cli.arguments import OF_OTHER_KITS, parse
from vlmeval.cli.listing import narrow_lines
from vlmeval.cli.main import main
from vlmeval.errors import UsageError, nearest_names

TINY = str(ROOT / "vlmeval" / "demo" / "Qwen2-VL-Tiny")


@pytest.fixture(autouse=True)
def place(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    monkeypatch.chdir(workplace.folder)
    for name, value in workplace.environment.items():
        monkeypatch.setenv(name, value)
    return workplace


def fails(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 2) -> str:
    """The one line on stderr; nothing may have been written to ./out."""
    assert main(arguments) == code
    err = capsys.readouterr().err
    assert err.startswith("vlmeval: error: ") and err.count("\n") == 1, err
    return err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--model", "Qwen2-VL-7B-Instuct", "--data", "MMBench"], "nearest: Qwen2-VL-7B-Instruct"),
        (["--model", "Qwen2-VL-Tiny", "--data", "MMBench_DEV_ENN"], "nearest: MMBench_DEV_EN"),
        (["--modle", "x", "--data", "ShapesBench"], "unknown flag '--modle'; nearest: --mode, --model"),
        (["--model", "Qwen2-VL-Tiny", "--data", "ShapesBench", "--batchsize", "2"], "nearest: --batch-size"),
        (
            ["--model", "Qwen2-VL-Tiny", "--data", "ShapesBench", "--mode", "evaluate"],
            "unknown mode 'evaluate'; nearest",
        ),
        (["--model", "Qwen2-VL-Tiny", "--data", "ShapesBench", "--limit", "0"], "--limit 0 must be at least 1"),
        (["--model", "Qwen2-VL-Tiny", "--data", "ShapesBench", "--limit", "x"], "invalid int value: 'x'"),
        (["--model", "Qwen2-VL-Tiny", "--data", "ShapesBench", "--batch-size", "0"], "--batch-size"),
        (
            ["--model", "Qwen2-VL-Tiny", "--data", "ShapesBench", "--temperature", "-1"],
            "temperature=-1.0 is out of range",
        ),
        (
            ["--model", "Qwen2-VL-Tiny", "--data", "ShapesBench", "--gen-kwargs", "topk=2"],
            "unknown key 'topk'; nearest: top_k",
        ),
        (["--model", "Qwen2-VL-Tiny", "--data", "ShapesBench", "--model-args", "min_pixel=2"], "nearest: min_pixels"),
        (["--model", "Qwen2-VL-Tiny", "--data", "ShapesBench", "--model-args", "min_pixels"], "not written key=value"),
        (["--model", "Qwen2-VL-Tiny", "--data", "ShapesBench", "--dtype", "fp8"], "dtype 'fp8' is not known"),
        (["--model", "Qwen2-VL-Tiny"], "--data is missing"),
        (["--data", "ShapesBench"], "--model is missing"),
        (["evaluate"], "unknown command 'evaluate'"),
        (["list", "modles"], "nearest: models"),
        (["--config", "none.json"], "none.json does not exist"),
    ],
)
def test_what_is_asked_wrongly(capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str) -> None:
    assert expected in fails(capsys, *arguments)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "a config is an object"),
        ({"models": {}}, "unknown key 'models'; nearest: model"),
        ({"model": {"x": {"class": "Qwen2VLChatt"}}}, "nearest: Qwen2VLChat"),
        ({"model": {"x": {"class": "Qwen2VLChat", "model_path": TINY, "min_pixel": 1}}}, "nearest: min_pixels"),
        ({"model": {"x": {"class": "no_such_package.module:MyVLM"}}}, "no 'no_such_package'"),
        ({"model": {"x": {"class": "my_model:Impatient"}}}, "my_model has no class 'Impatient'"),
        ({"model": {"x": {"class": "pathlib:Path"}}}, "no subclass of vlmeval.vlm.base.BaseModel"),
        ({"model": {"patient": {"class": "my_model:Patient", "log": "l", "wait": 1}}}, "nearest: wait_s"),
        ({"model": {"Qwen2-VL-Tinny": {}}}, "nearest: Qwen2-VL-Tiny"),
        ({"model": {"x": 3}}, "is an object of settings"),
        (
            {"model": {"Qwen2-VL-Tiny": {}}, "data": {"ShapesBench": {"class": "ImageMCQDatasett"}}},
            "nearest: ImageMCQDataset",
        ),
        ({"model": {"Qwen2-VL-Tiny": {}}, "data": {"ShapesBench": {"clas": "x"}}}, "nearest: class"),
    ],
)
def test_a_config_that_cannot_be_used(
    capsys: pytest.CaptureFixture[str], config: object, expected: str, tmp_path: Path
) -> None:
    (tmp_path / "c.json").write_text(config if isinstance(config, str) else json.dumps(config))
    assert expected in fails(capsys, "--config", "c.json", "--work-dir", "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_no_checkpoint(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "has no config.json" in fails(capsys, "--model", "./empty", "--data", "ShapesBench", code=1)
    assert "does not exist" in fails(capsys, "--model", "./nowhere", "--data", "ShapesBench")


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([], "no rows"),
        ([row(1), row(1)], "index"),
    ],
)
def test_a_benchmark_that_cannot_be_used(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, rows: list[dict[str, object]], expected: str
) -> None:
    write_tsv(tmp_path / "Bad.tsv", rows)
    told = fails(capsys, "--model", "Qwen2-VL-Tiny", "--data", "Bad.tsv", "--work-dir", "out", code=1)
    assert "Bad.tsv" in told and expected in told


def test_a_work_dir_that_cannot_be_written(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    told = fails(capsys, "--model", "Qwen2-VL-Tiny", "--data", "ShapesBench", "--work-dir", "file/out", code=1)
    assert "cannot be written" in told


def test_a_flag_that_is_given_twice_adds_its_names() -> None:
    options = parse(["--data", "A", "--model", "M", "--data", "B", "C", "--model", "N"])
    assert (options.data, options.model) == (["A", "B", "C"], ["M", "N"])
    assert parse(["--model", "M", "--data", "A"]).data == ["A"], "nothing may stay from the parse before"


def test_flags_of_other_kits_are_told_what_there_is_instead() -> None:
    flags = [flag for flag in OF_OTHER_KITS if flag.startswith("--")]
    assert len(flags) == len(OF_OTHER_KITS)
    for flag in flags:
        with pytest.raises(UsageError, match=f"unknown flag '{flag}': "):
            parse(["--model", "M", "--data", "D", flag.replace("-", "_").replace("__", "--"), "1"])


def test_names_with_commas_between_them_are_told_to_use_blanks(capsys: pytest.CaptureFixture[str]) -> None:
    assert "separated by blanks" in fails(capsys, "--model", "Qwen2-VL-Tiny", "--data", "MMBench,MMStar")
    assert "separated by blanks" in fails(capsys, "--model", "Qwen2-VL-Tiny,InternVL-Tiny", "--data", "ShapesBench")


def test_no_network_is_told_with_where_to_put_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    told = fails(capsys, "--model", "Qwen2-VL-Tiny", "--data", "MMBench", "--work-dir", "out", code=1)
    assert "MMBench.tsv" in told and "LMUData" in told and "MMBench_DEV_EN is the scorable split" in told


def test_a_launch_that_cannot_be_shared_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    assert "several machines" in fails(capsys, "--model", "Qwen2-VL-Tiny", "--data", "ShapesBench")
    monkeypatch.setenv("RANK", "2")
    assert "RANK=2 and WORLD_SIZE=2" in fails(capsys, "--model", "Qwen2-VL-Tiny", "--data", "ShapesBench")
    monkeypatch.setenv("WORLD_SIZE", "two")
    assert "no whole number" in fails(capsys, "--model", "Qwen2-VL-Tiny", "--data", "ShapesBench")


def test_mistakes_and_help_never_import_torch(place: Workplace) -> None:
    code = (
        "import sys; from vlmeval.cli.main import main\n"
        "main(sys.argv[1:])\n"
        "print([n for n in ('torch', 'transformers', 'numpy') if n in sys.modules])"
    )
    environment = {**place.environment, "PYTHONPATH": str(ROOT)}
    for arguments in (["--model", "nothing", "--data", "MMBench"], ["list", "models"], ["list", "datasets"], []):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment, check=True
        )
        assert done.stdout.splitlines()[-1] == "[]"


def test_without_arguments_it_explains_itself_and_points_at_the_demo(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "bash scripts/demo.sh" in capsys.readouterr().out


@pytest.mark.parametrize("word, listed", [("data", "datasets"), ("dataset", "datasets"), ("model", "models")])
def test_lists_go_by_the_words_of_the_flags_too(capsys: pytest.CaptureFixture[str], word: str, listed: str) -> None:
    assert (main(["list", word, "--json"]), main(["list", listed, "--json"])) == (0, 0)
    first, second = capsys.readouterr().out.split("\n]\n")[:2]
    assert first == second


def test_dashes_and_underscores_are_alike(place: Workplace) -> None:
    told = place.run(
        "--config", "config.json", "--model", "patient", "--data", "Mini.tsv", "--work_dir=a_b", "--limit", "2"
    )
    assert told.code == 0 and (place.folder / "a_b" / "patient").is_dir()


@pytest.mark.parametrize("what", ["models", "datasets"])
def test_lists_for_people_and_programs(capsys: pytest.CaptureFixture[str], what: str) -> None:
    assert main(["list", what]) == 0
    people = capsys.readouterr().out
    assert main(["list", what, "--json"]) == 0
    names = [entry["name"] for entry in json.loads(capsys.readouterr().out)]
    assert ("Qwen2-VL-Tiny" if what == "models" else "ShapesBench") in names
    assert all(name in people for name in names)


def test_the_same_command_line_as_a_module_and_as_a_script() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    script = subprocess.run([sys.executable, str(ROOT / "run.py")], capture_output=True, text=True, check=True)
    module = subprocess.run(
        [sys.executable, "-m", "vlmeval"], capture_output=True, text=True, check=True, env=environment
    )
    assert script.stdout == module.stdout


def test_a_narrow_terminal_lists_names_whole_and_breaks_no_word() -> None:
    row = {"name": "MVBench_MP4_8frame", "type": "MCQ", "traits": ["dataset_prompt", "video"], "notes": ""}
    lines = list(narrow_lines([row], 30))
    assert lines == ["MVBench_MP4_8frame", "    type: MCQ; traits:", "    dataset_prompt, video"]


def test_the_beginning_of_names_finds_them() -> None:
    names = ["MMBench", "CCBench", "LLaVABench", "OCRBench", "MMBench_CN", "MVBench_8frame", "MVBench_64frame"]
    assert nearest_names("mvbench", names)[:2] == ["MVBench_8frame", "MVBench_64frame"]


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["score", "--help"], ["data", "--help"]])
def test_help_fits_80_columns(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main(arguments)
    assert [line for line in capsys.readouterr().out.splitlines() if len(line) > 80] == []


def test_a_python_without_the_packages_gets_one_line_that_says_how_to_install_them(place: Workplace) -> None:
    asked = ["--model", TINY, "--data", "ShapesBench"]
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from vlmeval.cli.main import main; sys.exit(main({asked!r}))"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, cwd=place.folder)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "is not installed for" in done.stderr and "pip install -r requirements.txt" in done.stderr


OWN = """
from vlmeval.vlm.base import BaseModel
class Says(BaseModel):
    def __init__(self, answer):
        self.answer = answer
    def generate_inner(self, message, task=None):
        return self.answer
class NoLicence(BaseModel):
    def __init__(self):
        raise RuntimeError("no licence file")
    generate_inner = Says.generate_inner
class Raises(Says):
    def generate_inner(self, message, task=None):
        return {}["nothing"]
class Silent(BaseModel):
    pass
"""


def own_run(folder: Path, entry: dict[str, object], *flags: str) -> list[str]:
    (folder / "own_classes.py").write_text(OWN)
    (folder / "raises_on_import.py").write_text("raise RuntimeError('import went wrong')")
    (folder / "c.json").write_text(json.dumps({"model": {"mine": entry}, "data": {"ShapesBench": {}}}))
    return ["--config", "c.json", "--limit", "2", "--work-dir", "out", *flags]


@pytest.mark.parametrize(
    ("entry", "expected", "code"),
    [
        ({"class": "own_classes:NoLicence"}, "RuntimeError: no licence file (", 1),
        ({"class": "own_classes:Raises", "answer": 1}, "own_classes.py, line 14, in generate_inner", 1),
        ({"class": "raises_on_import:X"}, "raises_on_import.py, line 1, in <module>", 1),
        ({"class": "own_classes:Says"}, "Says needs the key 'answer'", 2),
        ({"class": "Qwen2VLChat"}, "Qwen2VLChat needs the key 'model_path'", 2),
        ({"class": "own_classes:Silent"}, "must define generate_inner or generate_batch", 2),
        ({"class": ":Says"}, "unknown model class ':Says'", 2),
    ],
)
def test_a_class_of_ones_own_that_goes_wrong_is_told_by_its_line(
    capsys: pytest.CaptureFixture[str], place: Workplace, entry: dict[str, object], expected: str, code: int
) -> None:
    told = fails(capsys, *own_run(place.folder, entry), code=code)
    assert expected in told


def test_verbose_shows_the_whole_traceback_of_a_class_of_ones_own(place: Workplace) -> None:
    with pytest.raises(RuntimeError, match="no licence"):
        main(own_run(place.folder, {"class": "own_classes:NoLicence"}, "--verbose"))


@pytest.mark.parametrize("answer", [None, 3, ["A"], {"a": 1}])
def test_an_answer_that_is_no_text_fails_its_sample(
    capsys: pytest.CaptureFixture[str], place: Workplace, answer: object
) -> None:
    assert main(own_run(place.folder, {"class": "own_classes:Says", "answer": answer})) == 1
    seen = capsys.readouterr()
    assert "failed: 2 (index 1, 2) of 2 samples" in seen.out
    journal = next(place.folder.glob("out/mine/T*/mine_ShapesBench.jsonl")).read_text()
    assert f"answered with {type(answer).__name__} " in journal


def test_an_error_of_the_package_itself_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def goes_wrong(arguments: object) -> int:
        return int(parse.__name__)

    goes_wrong.__code__ = goes_wrong.__code__.replace(co_filename=str(ROOT / "vlmeval" / "cli" / "main.py"))
    monkeypatch.setattr("vlmeval.cli.main._command", goes_wrong)
    with pytest.raises(ValueError, match="invalid literal"):
        main(["--model", "M"])
