"""Write made-up text to pre-train on: see gpt1/tasks/sample/text.py."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from gpt1.tasks.sample.text import main

if __name__ == '__main__':
    sys.exit(main())
