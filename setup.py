"""Installs the plug-in only. `training`, `torch_utils` and `dnnlib` are names that every official StyleGAN
checkout also has at its top level: installed, ours would be imported in their place. The scripts at the root
are run from the repository."""

from pathlib import Path

from setuptools import find_packages, setup

HF = "transformers>=4.45"
SLURM = "submitit>=1.5"
VIDEO = "imageio-ffmpeg>=0.5"
ONNX = ["onnx>=1.16", "onnxscript>=0.4"]
HOST = ["click>=8.1", "pillow>=10.1", "ninja>=1.11", "matplotlib>=3.8", "jinja2>=3.1"]
TEST = [*HOST, HF, SLURM, VIDEO, *ONNX, "onnxruntime>=1.18", "pytest>=8", "pytest-xdist>=3.5", "hypothesis>=6"]

setup(
    name="kd_plugin",
    version="0.1.0",
    description="CLIP knowledge distillation for GAN discriminators",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11",
    packages=find_packages(include=["kd_plugin", "kd_plugin.*"]),
    package_data={"kd_plugin": ["py.typed", "prompts/vocabulary.txt", "teachers/*.npz"]},
    install_requires=[
        "torch>=2.4",
        "numpy>=1.26",
        "safetensors>=0.4",
        "openai-clip>=1.0.1",
        "tqdm>=4.60",
        "filelock>=3.12",
    ],
    extras_require={
        "host": HOST,
        "hf": [HF],
        "open_clip": ["open_clip_torch>=2.24"],
        "slurm": [SLURM],
        "onnx": ONNX,
        "video": [VIDEO],
        "ui": ["gradio>=6"],
        "test": TEST,
        "dev": [*TEST, "ruff>=0.6", "mypy>=1.11"],
    },
)
