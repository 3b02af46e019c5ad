"""Copy the experiment and study files into the package when a wheel is built; all other settings: pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class WithConfigurations(build_py):
    """Builds the package with ``experiments`` and ``ablations`` in ``smoa_lightning/configs``."""

    def run(self) -> None:
        """Copy the package, then the files. An installation in place reads them from the source tree."""
        super().run()
        if not self.editable_mode:
            for kind in ("experiments", "ablations"):
                target = Path(self.build_lib, "smoa_lightning", "configs", kind)
                shutil.copytree(Path(__file__).parent / kind, target, dirs_exist_ok=True)


setup(cmdclass={"build_py": WithConfigurations})
