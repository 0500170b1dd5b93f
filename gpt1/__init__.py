"""The machinery of the scripts, a folder for each concern. Importing it imports nothing."""

import os

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # the folder of the scripts
