"""Write the made-up data of other tasks: see gpt1/tasks/sample/tasks.py."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from gpt1.tasks.sample.tasks import main

if __name__ == '__main__':
    sys.exit(main())
