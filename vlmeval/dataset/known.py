"""The benchmarks known by name, as data: one entry each (see docs/benchmarks.md). Nothing is derived from a name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmeval.dataset.video import VideoSettings, video_tsv
from vlmeval.types import TaskType

BASE_URL = "https://opencompass.openxlab.space/utils"
DEMO_FOLDER = Path(__file__).resolve().parent.parent / "demo"

CIRCULAR = frozenset({"circular"})
PLAIN: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """What is known about a benchmark. `url_path` is below the base URL or a mirror, or a whole URL; empty if the file
    is in the package.

    `scoring` names its rule (see `scoring.rules`); `scorable_split` the benchmark to score instead, where the answers
    of this one are not public.
    """

    name: str
    class_name: str
    type: TaskType
    url_path: str = ""
    md5: str = ""
    traits: frozenset[str] = PLAIN
    scoring: str = ""
    scorable_split: str = ""
    full_file: bool = False
    """The whole benchmark in a file only its makers have: the scorable split stands in where it cannot be had."""
    answer_column: str = "answer"
    prompt_suffix: str = ""
    video: VideoSettings | None = None
    """For a benchmark of videos: which frames. Its table and videos are not fetched."""
    video_source: str = ""
    """Where they are published."""
    stem: str = ""
    """What its TSV is called, where several benchmarks are one file."""

    @property
    def answer_note(self) -> str:
        """What to say where the file or its answers cannot be had."""
        return f"its answers are not public, {self.scorable_split} is the scorable split" if self.scorable_split else ""

    @property
    def packaged(self) -> bool:
        return not self.url_path and self.video is None

    def path(self, data_root: Path) -> Path:
        """Where its TSV is, or will be once fetched."""
        if self.video is not None:
            return video_tsv(data_root, self.stem)
        return (DEMO_FOLDER if self.packaged else data_root) / f"{self.name}.tsv"


def _spec(
    folder: str,
    name: str,
    md5: str,
    scoring: str,
    traits: str = "",
    *,
    kind: TaskType = "MCQ",
    class_name: str = "ImageMCQDataset",
    file: str = "",
    **more: Any,
) -> DatasetSpec:
    """`file` is the name at the server where it is not `{name}.tsv`."""
    return DatasetSpec(
        name=name,
        class_name=class_name,
        type=kind,
        url_path=f"{folder}/{file or name + '.tsv'}" if folder else "",
        md5=md5,
        scoring=scoring,
        traits=frozenset(traits.split()),
        **more,
    )


def _mmbench(name: str, md5: str, scorable_split: str = "", full_file: bool = False) -> DatasetSpec:
    return _spec(
        _MMBENCH, name, md5, "choices", "circular", scorable_split=scorable_split, full_file=full_file
    )  # fmt: skip


_YES_NO: dict[str, Any] = {"kind": "Y/N", "class_name": "ImageYORNDataset"}


def _words(class_name: str = "ImageVQADataset") -> dict[str, Any]:
    return {"kind": "VQA", "class_name": class_name}


def _videos(
    class_name: str, stem: str, md5: str, scoring: str, source: str, names: Mapping[str, VideoSettings]
) -> Iterator[DatasetSpec]:
    """One table of videos under several names: upstream's, which say how many frames are shown."""
    for suffix, video in names.items():
        yield _spec(
            "", stem + suffix, md5, scoring, "video dataset_prompt", class_name=class_name, video=video, stem=stem,
            video_source=source,
        )  # fmt: skip


_MMBENCH = "benchmarks/MMBench"
_MMT = "benchmarks/MMT-Bench"
_SCIENCE = "benchmarks/ScienceQA"
_VERSE = "benchmarks/MathVerse"
_HUB = "https://huggingface.co/datasets"

supported_datasets: dict[str, DatasetSpec] = {
    spec.name: spec
    for spec in (
        _spec("", "ShapesBench", "", "choices", "circular"),
        # Multiple choice.
        _mmbench("MMBench_DEV_EN", "b6caf1133a01c6bb705cf753bb527ed8"),
        _mmbench("MMBench_TEST_EN", "6939fadb0ce626fefc0bdc9c64efc528", "MMBench_DEV_EN"),
        _mmbench("MMBench_DEV_CN", "08b8fc3324a5ed74155350f57be69fbd"),
        _mmbench("MMBench_TEST_CN", "7e1239baf0ee4c8b513e19705a0f317e", "MMBench_DEV_CN"),
        _mmbench("MMBench", "4115aea3383f3dd0083be6a633e0f820", "MMBench_DEV_EN", full_file=True),
        _mmbench("MMBench_CN", "2e053ffc90ea598b1feae13c36dc13ee", "MMBench_DEV_CN", full_file=True),
        _mmbench("MMBench_DEV_EN_V11", "30c05be8f2f347a50be25aa067248184"),
        _mmbench("MMBench_TEST_EN_V11", "8d1a704e791df6f5d9fb3ef782b65365", "MMBench_DEV_EN_V11"),
        _mmbench("MMBench_DEV_CN_V11", "593f9b5f6bea453d870a798b34ae4f37"),
        _mmbench("MMBench_TEST_CN_V11", "156e6569f9547afb16603eca16e85373", "MMBench_DEV_CN_V11"),
        _mmbench("MMBench_V11", "b9276414f57af1308dcc4d0cd9b42e7c", "MMBench_DEV_EN_V11", full_file=True),
        _mmbench("MMBench_CN_V11", "95f6980dd1b4de38e3cbffe0305a3f25", "MMBench_DEV_CN_V11", full_file=True),
        _spec("VLMEval", "CCBench", "f5dde47f24dc5a6fb6e595b409b466ac", "choices", "circular"),
        _spec("VLMEval", "MMStar", "e1ecd2140806c1b1bbf54b43372efb9e", "choices"),
        _spec("benchmarks/SEEDBench", "SEEDBench_IMG", "68017231464752261a2526d6ca3a10c0", "choices"),
        _spec(
            "VLMEval", "MMMU_DEV_VAL", "585e8ad75e73f75dcad265dfd0417d64", "choices_and_open",
            "image_markers multi_image", class_name="MMMUDataset",
        ),
        _spec(
            "VLMEval", "MMMU_TEST", "c19875d11a2d348d07e5eb4bdf33166d", "choices_and_open",
            "image_markers multi_image", class_name="MMMUDataset", scorable_split="MMMU_DEV_VAL",
        ),
        _spec("VLMEval", "AI2D_TEST", "0f593e0d1c7df9a3d69bf1f947e71975", "choices"),
        _spec(_SCIENCE, "ScienceQA_VAL", "96320d05e142e585e7204e72affd29f3", "choices"),
        _spec(_SCIENCE, "ScienceQA_TEST", "e42e9e00f9c59a80d8a5db35bc32b71f", "choices"),
        _spec("VLMEval", "RealWorldQA", "4de008f55dc4fd008ca9e15321dc44b7", "choices"),
        _spec("VLMEval", "BLINK", "d5e8af148b10ac69f535ff7b23f3f989", "choices", "multi_image"),
        _spec("VLMEval", "BLINK_circular", "f44c9f19afda14262cd1e0731bd01f9e", "choices", "circular multi_image"),
        _spec(_MMT, "MMT-Bench_VAL", "8dd4b730f53dbf9c3aed90ca31c928e0", "mmt_bench"),
        _spec(_MMT, "MMT-Bench_VAL_MI", "c7d7b998eb5cd9aa36c7d4f721472462", "mmt_bench", "multi_image"),
        _spec(_MMT, "MMT-Bench_ALL", "b273a2f4c596fe4f2605de0494cd632f", "mmt_bench", scorable_split="MMT-Bench_VAL"),
        _spec(
            _MMT, "MMT-Bench_ALL_MI", "5272157097e19cdd7cb41e412ab3b7c7", "mmt_bench", "multi_image",
            scorable_split="MMT-Bench_VAL_MI",
        ),
        # Yes or no.
        _spec("VLMEval", "MME", "b36b43c3f09801f5d368627fb92187c3", "mme", "one_word", **_YES_NO),
        _spec("VLMEval", "POPE", "c12f5acb142f2ef1f85a26ba2fbe41d5", "pope", "yes_no_suffix", **_YES_NO),
        _spec(
            "VLMEval", "HallusionBench", "0c23ac0dc9ef46832d7a24504f2a0c7c", "hallusionbench",
            "yes_no_suffix one_word", **_YES_NO,
        ),
        # Answers in words.
        _spec("VLMEval", "TextVQA_VAL", "b233b31f551bbf4056f2f955da3a92cd", "vqa_accuracy", "short_answer", **_words()),
        _spec("VLMEval", "DocVQA_VAL", "d5ee77e1926ff10690d469c56b73eabf", "anls", "short_answer document", **_words()),
        _spec(
            "VLMEval", "DocVQA_TEST", "6a2f28cac26ef2d3447374e8c6f6c8e9", "anls", "short_answer document",
            scorable_split="DocVQA_VAL", **_words(),
        ),
        _spec(
            "VLMEval", "InfoVQA_VAL", "2342e9c225222f0ef4dec545ebb126fe", "anls", "short_answer fine_print", **_words()
        ),
        _spec(
            "VLMEval", "InfoVQA_TEST", "df535bf51b88dc9718252c34131a6227", "anls", "short_answer fine_print",
            scorable_split="InfoVQA_VAL", **_words(),
        ),
        _spec(
            "VLMEval", "ChartQA_TEST", "c902e0aa9be5582a7aad6dcf52734b42", "relaxed_accuracy", "short_answer chart",
            **_words(),
        ),
        _spec(
            "VLMEval", "OCRBench", "e953d98a987cc6e26ef717b61260b778", "ocrbench", "small_images fine_print",
            **_words("OCRBench"),
        ),
        _spec(
            "VLMEval", "MathVista_MINI", "f199b98e178e5a2a20e7048f5dcb0464", "mathvista", "reasoning judge",
            **_words("MathVista"),
        ),
        _spec("VLMEval", "MMVet", "748aa6d4aa9d4de798306a63718455e3", "mmvet", "own_wording judge", **_words("MMVet")),
        _spec(
            "VLMEval", "LLaVABench", "d382a093f749a697820d3dadd61c8428", "llavabench", "judge detailed",
            **_words("LLaVABench"),
        ),
        # Conversations.
        _spec(
            "VLMEval", "MMDU", "848b635a88a078f49aebcc6e39792061", "mmdu", "multi_image judge", kind="MT",
            class_name="MMDUDataset",
        ),
        _spec(
            "VLMEval", "MM_MT_Bench", "5c9f2a4b7c97f44a7a3c603ce7dee0ce", "mm_mt_bench", "multi_image judge", kind="MT",
            class_name="MMMTBenchDataset", file="MM-MT-Bench.tsv",
        ),
        # Beyond the table of benchmarks.md: files, columns and rules from VLMEvalKit's public source.
        _spec(
            "VLMEval", "MMMU_Pro_10c", "22cee868fe6b680d14b99bfff6db8172", "choices",
            "image_markers multi_image dataset_prompt", class_name="MMMUProDataset",
        ),
        *(
            _spec(
                "VLMEval", name, md5, scoring, traits, class_name=class_name, file=file
            )
            for name, file, md5, scoring, traits, class_name in (
                ("MMMU_Pro_10c_COT", "MMMU_Pro_10c.tsv", "22cee868fe6b680d14b99bfff6db8172", "mmmu_pro_stepwise",
                 "image_markers multi_image dataset_prompt reasoning", "MMMUProStepwise"),
                ("MMMU_Pro_V", "", "d01441a87b3dbe721b5a04652ae38009", "choices", "dataset_prompt", "MMMUProVision"),
                ("MMMU_Pro_V_COT", "MMMU_Pro_V.tsv", "d01441a87b3dbe721b5a04652ae38009", "mmmu_pro_stepwise",
                 "dataset_prompt reasoning", "MMMUProVisionStepwise"),
            )
        ),
        _spec(
            f"{_HUB}/yifanzhang114/MME-RealWorld-Base64/resolve/main", "MME-RealWorld-Lite",
            "4c17057d7d3b6c4a0d4397c3dae0881c", "mme_realworld", "dataset_prompt", class_name="MMERealWorld",
            file="mme_realworld_lite.tsv",
        ),
        _spec(f"{_HUB}/VLMEval/SEEDBench2/resolve/main", "SEEDBench2", "4ec15cf864c4f16274112284f531813e", "choices",
              "multi_image"),
        _spec("VLMEval", "SEEDBench2_Plus", "e32d3216dc4f452b0fe497a52015d1fd", "choices"),
        *(
            _spec(
                f"{_HUB}/DreamMr/HR-Bench/resolve/main", name, md5, "hr_bench", class_name="HRBenchDataset", file=file
            )
            for name, file, md5 in (
                ("HRBench4K", "hr_bench_4k.tsv", "f6b041b03d49543494b8a56d2e35be65"),
                ("HRBench8K", "hr_bench_8k.tsv", "274c9c7f89329b804a4723178a00219c"),
            )
        ),
        _spec(
            f"{_HUB}/yifanzhang114/AMBER_base64/resolve/main", "AMBER", "970d94c0410916166e0a76ba75da7934", "amber",
            prompt_suffix="\nPlease answer yes or no.", **_YES_NO,
        ),
        _spec(
            "VLMEval", "VizWiz", "fa4ac4164467563ed2fac6eac6631bd0", "vqa_accuracy", answer_column="answers",
            **_words("VizWiz"),
        ),
        *(
            _spec("VLMEval", name, md5, "word_match", "short_answer", **_words())
            for name, md5 in (
                ("OCRVQA_TEST", "ca46a6d74b403e9d6c0b670f6fc00db9"),
                ("OCRVQA_TESTCORE", "c5239fe77db8bdc1f2ad8e55e0d1fe97"),
                ("GQA_TestDev_Balanced", "99b62f22e224d9b2f32dcbe41359d1c9"),
            )
        ),
        *(
            _spec("VLMEval", name, md5, "mathvision", "reasoning judge", **_words("MathVision"))
            for name, md5 in (
                ("MathVision", "93f6de14f7916e598aa1b7165589831e"),
                ("MathVision_MINI", "060fe4fa5d868987ce179307bd5f8a33"),
            )
        ),
        *(
            _spec(_VERSE, name, md5, "mathverse", "reasoning judge", file=file, **_words("MathVerse"))
            for name, file, md5 in (
                ("MathVerse_MINI", "MathVerse_MINIV.tsv", "5017caca32b7fa110c350a1bea861b65"),
                ("MathVerse_MINI_Vision_Only", "MathVerse_MINIVOnly.tsv", "68a11d4680014ac881fa37adeadea3a4"),
                ("MathVerse_MINI_Vision_Dominant", "MathVerse_MINIVDom.tsv", "b8fb63852d261ab2aaefba29cc2414d3"),
                ("MathVerse_MINI_Vision_Intensive", "MathVerse_MINIVInt.tsv", "01cbd35be202bb0c4873a4186a63bc19"),
                ("MathVerse_MINI_Text_Lite", "MathVerse_MINITLite.tsv", "19e4b13bdd30b89a03b2e358bcfefa04"),
                ("MathVerse_MINI_Text_Dominant", "MathVerse_MINITDom.tsv", "4f5cd2fa6630ea00bb11d6fde1f6fe6a"),
            )
        ),
        _spec(
            _VERSE, "MathVerse_MINI_Vision_Only_cot", "68a11d4680014ac881fa37adeadea3a4", "mathverse",
            "reasoning judge", file="MathVerse_MINIVOnly.tsv", **_words("MathVerseStepwise"),
        ),
        # Videos.
        *_videos(
            "VideoMME", "Video-MME", "85bdd91f9b29a99354c23b97ab7c113c", "video_mme", f"{_HUB}/lmms-lab/Video-MME",
            {
                "_8frame": VideoSettings(nframe=8), "_64frame": VideoSettings(nframe=64),
                "_8frame_subs": VideoSettings(nframe=8, use_subtitle=True), "_1fps": VideoSettings(fps=1.0),
                "_0.5fps": VideoSettings(fps=0.5), "_0.5fps_subs": VideoSettings(fps=0.5, use_subtitle=True),
            },
        ),
        *_videos(
            "MVBench", "MVBench", "fd21d36522cdedd46d84dc46715ad832", "mvbench", f"{_HUB}/OpenGVLab/MVBench",
            {"_8frame": VideoSettings(nframe=8), "_64frame": VideoSettings(nframe=64)},
        ),
        *_videos(
            "MVBench_MP4", "MVBench_MP4", "7b4608045347904c28c153015a7a2b6b", "mvbench",
            f"{_HUB}/OpenGVLab/MVBench (branch video)",
            {"_8frame": VideoSettings(nframe=8), "_1fps": VideoSettings(fps=1.0)},
        ),
        *_videos(
            "MLVU_MCQ", "MLVU_MCQ", "bb5c37e7cf8d43fc9a25c23d2b4633f5", "mlvu", f"{_HUB}/MLVU/MVLU",
            {
                "_8frame": VideoSettings(nframe=8), "_64frame": VideoSettings(nframe=64),
                "_1fps": VideoSettings(fps=1.0),
            },
        ),
    )
}  # fmt: skip


def traits_of_unknown(name: str) -> frozenset[str]:
    """Upstream's rule on names, for a TSV that is in no table: applied once, when it is registered."""
    lower = name.lower()
    return CIRCULAR if any(part in lower for part in ("mmbench", "ccbench", "circular", "mmcr")) else PLAIN
