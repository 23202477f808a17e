"""An application whose import fails, after supervisord has taken it for running."""

import os
import time

time.sleep(float(os.environ.get("SECONDS", "1.2")))
raise RuntimeError("no database")
