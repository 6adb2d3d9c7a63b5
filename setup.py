"""Package `vlmeval`, console script `vlmeval`."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent


def requirements(name: str) -> list[str]:
    """The requirement lines of a file, without comments."""
    lines = (HERE / name).read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


VERSION = next(
    line.split('"')[1]
    for line in (HERE / "vlmeval" / "__init__.py").read_text(encoding="utf-8").splitlines()
    if line.startswith("__version__")
)

setup(
    name="vlmeval",
    version=VERSION,
    description="Evaluate any vision-language model on whatever cards a machine has",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    python_requires=">=3.10",
    packages=find_packages(include=["vlmeval", "vlmeval.*"]),
    package_data={
        "vlmeval.placement": ["configs/*.json", "profiles/*.json"],
        "vlmeval.demo": ["*.tsv", "*/*.json", "*/*.safetensors", "*/*.jinja", "*/*.txt", "*/*.model"],
    },
    install_requires=requirements("requirements.txt"),
    extras_require={"flash": ["flash-attn"], "test": requirements("requirements-test.txt")},
    entry_points={"console_scripts": ["vlmeval=vlmeval.cli.main:main"]},
)
