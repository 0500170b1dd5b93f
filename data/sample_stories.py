"""Write the made-up stories again: see gpt1/tasks/sample/stories.py."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from gpt1.tasks.sample.stories import main

if __name__ == '__main__':
    sys.exit(main())
