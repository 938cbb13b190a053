"""Print the first Python block of a Markdown file, for a script to run.

Run: python scripts/first_example.py README.md
"""

import re
import sys
from pathlib import Path

print(re.findall(r"^```python\n(.*?)^```", Path(sys.argv[1]).read_text(encoding="utf-8"), re.S | re.M)[0])
