"""What the command line does before a verb begins; the verbs are in the tests of their own."""

from __future__ import annotations

import subprocess
import sys


def test_the_command_line_starts_msgspec_without_what_it_does_not_need() -> None:
    program = (
        "import sys\n"
        "from fairlead.control.cli import lean_msgspec\n"
        "lean_msgspec()\n"
        "lean_msgspec()\n"
        "assert 'msgspec' in sys.modules and 'typing_extensions' not in sys.modules\n"
        "import typing_extensions\n"
        "from fairlead.registry.model import Service\n"
        "import msgspec\n"
        'assert msgspec.json.decode(b\'{"host":"a","namespace":"b","name":"c"}\', type=Service).name == "c"\n'
    )
    subprocess.run([sys.executable, "-P", "-c", program], check=True, cwd="/")
